"""The notebook: whole and clean by `make test`; installed and run from top to bottom by `make test-all`.

It runs twice, in environments that hold nothing but Jupyter's kernel before the notebook installs the package into
them: with the pinned versions, and with the oldest that pyproject.toml allows.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from snippets import NOTEBOOK, ROOT

PARTS = ("cloudml_tf", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE", "colab_training.ipynb")
LIMIT_S = 1800  # it takes under five minutes on two cores that do nothing else
OLDEST = os.environ.get("OLDEST_PYTHON", "python3.12")  # as in the Makefile
INSTALL = 2  # the number of the cell that installs the package
VERSIONS = {"pinned": (sys.executable, "constraints.txt"), "oldest": (OLDEST, "constraints-oldest.txt")}


def cells(kind: str) -> list[dict[str, Any]]:
    """The notebook's cells of one kind."""
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_git_keeps_the_notebook_without_outputs() -> None:
    for cell in cells("code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_the_python_of_the_notebook_compiles() -> None:
    for cell in cells("code"):
        lines = [re.sub(r"^(\s*)[!%].*", r"\1pass", line.rstrip("\n")) for line in cell["source"]]
        compile("\n".join(lines), cell["id"], "exec")


def test_files_that_the_notebook_names_are_there() -> None:
    text = "".join(line for kind in ("code", "markdown") for cell in cells(kind) for line in cell["source"])
    named = set(re.findall(r"\b(?:docs|configs|benchmarks)/[\w-]+\.\w+", text))
    assert {"docs/own-data.md", "configs/tutorial.json"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_notebook_finds_a_wheel_a_zip_or_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = [line for line in json.loads(NOTEBOOK.read_text())["cells"][INSTALL]["source"] if not line.startswith("%")]
    code = compile("".join(source), "install", "exec")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="Upload the wheel"):
        exec(code, {})
    with zipfile.ZipFile("cloudml_tf-main.zip", "w") as archive:
        archive.writestr("cloudml_tf-main/pyproject.toml", "")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["package"] == str(tmp_path / "cloudml_tf_copy/cloudml_tf-main")
    (tmp_path / "cloudml_tf-0.2.0-py3-none-any.whl").write_bytes(b"")
    exec(code, names)
    assert names["package"] == str(tmp_path / "cloudml_tf-0.2.0-py3-none-any.whl")
    monkeypatch.chdir(ROOT)
    exec(code, names)
    assert names["package"] == "."


def environment(home: Path, python: str, constraints: str) -> dict[str, str]:
    """The variables of a fresh environment in `home` that has Jupyter's kernel and nothing of ours."""
    subprocess.run([python, "-m", "venv", home], check=True)
    strange = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
    env = {name: value for name, value in os.environ.items() if name not in strange}
    env |= {"PATH": f"{home / 'bin'}:{env['PATH']}", "PIP_CONSTRAINT": str(ROOT / constraints)}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    subprocess.run([home / "bin/pip", "install", "-q", "ipykernel", "nbclient"], check=True, env=env)
    return env


@pytest.mark.slow
@pytest.mark.parametrize("versions", VERSIONS)
def test_the_notebook_installs_and_runs(versions: str, tmp_path: Path) -> None:
    python, constraints = VERSIONS[versions]
    if shutil.which(python) is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip(f"there is no {python} on this machine; OLDEST_PYTHON=… names another")
    env = environment(tmp_path / "environment", python, constraints)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in PARTS:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    begun = time.perf_counter()
    line = ["jupyter-execute", "--inplace", "--timeout=900", "colab_training.ipynb"]
    done = subprocess.run(line, cwd=copy, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"{versions}: {time.perf_counter() - begun:.0f} s")
    check_outputs(json.loads((copy / "colab_training.ipynb").read_text()))


def check_outputs(notebook: dict[str, Any]) -> None:
    """No error in any cell, a shell's line included, and the results that the text promises."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    text = "".join("".join(output.get("text", "")) for output in outputs)
    assert "Traceback" not in text
    for expected in ("ready to train", "acceptance: passed", "diagnosis: healthy", "LiteRT", "592 of 598 frames"):
        assert expected in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    own = re.findall(r"^λ (\S+): R² (\S+), s (\S+),", text, re.MULTILINE)
    assert [weight for weight, _, _ in own] == ["0.0", "0.5"]
    assert all(float(r2) > 0.5 for _, r2, _ in own)
    assert float(own[0][2]) < float(own[1][2])  # the penalty keeps more of the spread
    assert "\x1b[2K" not in text  # no bars: a notebook keeps each of their states
