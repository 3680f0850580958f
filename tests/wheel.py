"""The wheel, as `make wheel` builds it in a copy of the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from snippets import ROOT

# What of the repository the package is made from.
PARTS = ("cloudml_tf", "configs", "setup.py", "pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE")
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


def variables() -> dict[str, str]:
    """The variables of this process, without those that lead to this copy of the package."""
    return {name: value for name, value in os.environ.items() if name not in OURS}


def copy_repository(home: Path) -> Path:
    """A new folder with all that the package is made from."""
    home.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, home / name)
    return home


def make_wheel(home: Path) -> Path:
    """The wheel of a copy of the repository in a new folder. The network is needed for uv and setuptools."""
    copy_repository(home)
    subprocess.run(["make", "wheel", f"PYTHON={sys.executable}"], cwd=home, env=variables(), check=True, timeout=300)
    (wheel,) = (home / "dist").glob("*.whl")
    return wheel
