"""Configuration files with every kind of spoilt content, as bytes, and what a command line adds to them."""

import json
from typing import Any

from choices import Choices
from conftest import TINY

from cloudml_tf.config.load import parse_config

NAMES = [
    "data",
    "kind",
    "split",
    "seed",
    "files",
    "time",
    "x",
    "",
    ".",
    "\x00",
    "é",
    "__class__",
    "model_config",
    "a" * 300,
]
PLAIN: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e-300, 1e300, 5e-324, -0.0),
    *(
        "",
        "text",
        "default",
        "attribute",
        "${HOME}",
        "${NOWHERE}",
        "${A:-b}",
        "~",
        "~nobody/x",
        "/",
        "*",
        "**/*",
        "..",
        "\x00",
    ),
    *("\ud800", "a" * 5000, "20240603", "file_name", "flights", "sim01", "none", "nan", "1e5", "null"),
]
TEXTS = [
    *("{}", "[]", "", "null", "3", '"text"', "{", '{"seed": NaN}', '{"seed": Infinity}', '{"seed": 1e999}', "\ufeff{}"),
    *('{"seed": 1, "seed": 2}', "[" * 100_000, '{"a":' * 50_000, '{"seed": ' + "9" * 5000 + "}", "{'seed': 1}", "\x00"),
]


def whole() -> dict[str, Any]:
    """A good configuration with every default, as plain JSON."""
    found: dict[str, Any] = json.loads(parse_config({**TINY, "experiment_name": "tiny"}).model_dump_json())
    return found


def odd_value(choices: Choices) -> Any:
    """Something that a field may not expect."""
    how = choices.below(12)
    if how < 8:
        return choices.pick(PLAIN)
    if how == 8:
        return [choices.pick(PLAIN) for _ in range(choices.below(4))]
    if how == 9:
        return {choices.pick(NAMES): choices.pick(PLAIN)}
    if how == 10:
        return choices.pick([{"kind": "flights"}, {"kind": "time_blocks"}, {"kind": "leave_one_out", "test": "sim01"}])
    deep: Any = choices.pick(PLAIN)
    for _ in range(choices.pick([3, 30, 500])):
        deep = {"x": deep} if choices.one_in(2) else [deep]
    return deep


def near_value(value: Any, choices: Choices) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and abs(value) < 1e300:
        return choices.pick(
            [value + 1, value - 1, value * 2, -value, value * 1000, value + 0.5, float(value), str(value)]
        )
    if isinstance(value, list):
        return choices.pick([value * 2, value[:-1], value[::-1], [*value, choices.pick(PLAIN)]])
    return choices.pick(PLAIN)


def spoilt_content(choices: Choices, base: dict[str, Any]) -> Any:
    """The good configuration with some places changed."""
    content = json.loads(json.dumps(base))
    for _ in range(1 + choices.below(4)):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = choices.pick(keys)
            if isinstance(place[key], dict | list) and not choices.one_in(8):
                place = place[key]
                continue
            how = choices.below(12)
            if how < 4:
                place[key] = odd_value(choices)
            elif how < 8:
                place[key] = near_value(place[key], choices)
            elif how == 8:
                del place[key]
            elif how == 9 and isinstance(place, dict):
                place[choices.pick(NAMES)] = odd_value(choices)
            elif isinstance(place, dict):
                place[str(key) + choices.pick(["", "s", "_", " "])] = place.pop(key)
            break
    return content


def spoilt_text(choices: Choices, base: dict[str, Any]) -> bytes:
    """The bytes of a configuration file."""
    how = choices.below(16)
    if how == 0:
        return choices.pick(TEXTS).encode("utf-8")
    text = json.dumps(spoilt_content(choices, base) if how < 13 else base, ensure_ascii=choices.one_in(2))
    data = bytearray(text.encode("utf-8", errors="surrogatepass"))
    for _ in range(choices.below(6) if how >= 12 else 0):
        place = choices.below(len(data))
        if choices.one_in(2):
            data[place] = choices.below(256)
        elif choices.one_in(8):
            del data[max(place, 1) :]
        else:
            data[place:place] = choices.pick(
                [b"{", b"}", b"[", b",", b'"', b"\\", b"\\ud800", b"1e999", b"\xff", b"\n", b"-"]
            )
    return bytes(data)


def spoilt_overrides(choices: Choices, base: dict[str, Any]) -> list[str]:
    """Words for --set."""
    found = []
    for _ in range(choices.below(3)):
        place, path = base, []
        while isinstance(place, dict) and place and not (path and choices.one_in(6)):
            path.append(choices.pick(list(place)))
            place = place[path[-1]]
        key = ".".join(path) + choices.pick(["", "", "", "", ".x", "s", "."])
        value = odd_value(choices)
        try:
            text = choices.pick([json.dumps(value), str(value)[:20_000]])
        except (RecursionError, ValueError):
            text = "[" * 10_000
        found.append(choices.pick([f"{key}={text}"] * 6 + [key, f"={text}", text[:100], f"{key}=={text}"]))
    return found
