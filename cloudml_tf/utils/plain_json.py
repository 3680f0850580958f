"""Read untrusted JSON: bounded in size and depth, without duplicate keys, finite numbers and valid Unicode only."""

import json
import math
from pathlib import Path
from typing import Any

MOST_MB = 16  # largest configuration; a campaign of ten thousand flights, named file by file, has 3
DEEPEST = 64
LONGEST_NUMBER = 400  # digits; a float has 309 at most


def read(path: Path, most_mb: float = MOST_MB) -> Any:
    """The content of a file. Raises `OSError` where it cannot be read, and `ValueError` where it is not plain JSON."""
    if path.exists() and not path.is_file():
        raise ValueError("cannot be read as a text file: it is a folder, a device or a pipe. Give a JSON file")
    most = int(most_mb * 2**20)
    with open(path, "rb") as file:
        data = file.read(most + 1)  # not the reported size: some files have none, and no end
    if len(data) > most:
        raise ValueError(f"is larger than {most_mb:g} MB; such a file is not JSON of cloudml_tf")
    try:
        return parse(data.decode("utf-8-sig"))  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read as a text file ({error}). Give a JSON file") from None


def parse(text: str) -> Any:
    """Parse a JSON document. Raises `json.JSONDecodeError` for invalid JSON, and `ValueError` for what is not plain."""
    try:
        found = json.loads(
            text, parse_constant=_constant, parse_int=_integer, parse_float=_float, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError(f"is nested deeper than {DEEPEST} levels") from None
    _check(found)
    return found


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: "\\ud800" cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows; give a finite number, or null where that is allowed")


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"holds a number of {len(text)} digits; the longest has {LONGEST_NUMBER}")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= LONGEST_NUMBER else math.inf
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large or too long for a number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key '{twice[:80]}' appears twice in one object; keep one")
    return found


def _check(found: Any, depth: int = 0) -> None:
    """Refuse content that is nested too deep, and invalid text."""
    if depth >= DEEPEST:
        raise ValueError(f"is nested deeper than {DEEPEST} levels")
    if isinstance(found, str) and not is_text(found):
        raise ValueError("holds text that is not Unicode (a lone \\ud800 to \\udfff)")
    inside = [*found, *found.values()] if isinstance(found, dict) else found if isinstance(found, list) else []
    for part in inside:
        _check(part, depth + 1)
