"""Write files of ICARTT by hand, as archives have them, for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("Latitude", "Longitude", "Solar_Zenith_Angle", "Sun_Azimuth", "True_Heading")


def write_icartt(
    path: Path,
    time_s: np.ndarray,
    columns: Mapping[str, np.ndarray],
    *,
    date: str = "2024, 06, 03, 2024, 11, 20",
    units: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    missing: str = "-9999.00",
    comments: Sequence[str] = ("ULOD_FLAG: -7777", "ULOD_VALUE: N/A", "LLOD_FLAG: -8888", "LLOD_VALUE: N/A"),
    replace: Mapping[int, str] | None = None,
    delimiter: str = ", ",
) -> Path:
    """Write seconds of the day and columns; `replace` exchanges lines of the header, counted from 1."""
    names = list(columns)
    described = [f"{name}, {(units or {}).get(name, 'deg')}, Platform_{name}, of the aircraft" for name in names]
    special, normal = ["Nothing special."], [*comments, ", ".join(["Time_Start", *names])]
    header = [
        "", "Doe, Jane", "An institute", "Navigation of the ER-2", "CAMPAIGN", "1, 1", date, "1.0",
        "Time_Start, seconds, Time_Start_UTC, seconds since midnight", str(len(names)),
        ", ".join(str((scale or {}).get(name, 1)) for name in names), ", ".join([missing] * len(names)), *described,
        str(len(special)), *special, str(len(normal)), *normal,
    ]  # fmt: skip
    header[0] = f"{len(header)}, 1001, V02_2016"
    for line, text in (replace or {}).items():
        header[line - 1] = text
    table = np.stack([time_s, *columns.values()], axis=1)
    rows = [delimiter.join(f"{value:.4f}" if value % 1 else f"{value:.1f}" for value in row) for row in table.tolist()]
    path.write_text("\n".join([*header, *rows]) + "\n")
    return path


def navigation(count: int, **changes: Any) -> dict[str, np.ndarray]:
    """Columns of a straight leg."""
    steps = np.arange(count)
    values: dict[str, Any] = {
        "Latitude": 34 + 1e-3 * steps, "Longitude": -120 + 1e-3 * steps, "Solar_Zenith_Angle": 40 + 1e-3 * steps,
        "Sun_Azimuth": 150 + 1e-3 * steps, "True_Heading": np.full(count, 90.0),
    }  # fmt: skip
    return {**values, **changes}
