"""constraints-oldest.txt holds the lower bounds that pyproject.toml declares, so that `make test-oldest` tests them."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(line for lines in extras for line in lines)]
    bounds = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in declared if ">=" in line)
    text = (ROOT / "constraints-oldest.txt").read_text().split("# ---")[0]
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))
    assert set(pinned) == set(bounds)
    for name, bound in bounds.items():
        assert f"{pinned[name]}.".startswith(f"{bound}."), f"{name}: {pinned[name]} is not {bound}"
