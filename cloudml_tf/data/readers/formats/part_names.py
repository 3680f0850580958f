"""What the names of files say of parts of a flight: their numbers, and the pattern that stands for them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NUMBERED = r"(?i)((?<![a-z])(?:part|pt|seg(?:ment)?|chunk)[-_. ]?)\d+"  # in the name of a part


def by_number(path: Path) -> tuple[Any, ...]:
    """A key that sorts the numbers in names as numbers: part 10 comes after part 9."""
    return tuple(int(word) if word.isdigit() else word for word in re.split(r"(\d+)", path.name))


def numbered_together(paths: Sequence[Path]) -> list[Path]:
    """Files, those as one pattern whose names are alike but for the number of the part: cam_part1.h5, cam_part2.h5."""
    alike: dict[Path, list[Path]] = {}
    for path in paths:
        alike.setdefault(path.parent / re.sub(NUMBERED, r"\1*", path.name), []).append(path)
    return [one for path, found in alike.items() for one in ([path] if len(found) > 1 else found)]


def without_parts(stem: str) -> str:
    """What a pattern of parts names, without their star: cam_20240603 of cam_20240603_part*."""
    return re.sub(r"(?i)[-_. ]*((?<![a-z])(part|pt|seg(ment)?|chunk))?[-_. ]*\*", "", stem)
