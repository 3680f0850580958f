"""The notebook: whole and clean by `make test`; installed and run from top to bottom by `make test-all`.

It runs twice, in environments that hold nothing but Jupyter's kernel before the notebook installs the package into
them: from the wheel with the pinned versions, and from a zip of the repository with the oldest that pyproject.toml
allows. Neither folder holds anything else.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from snippets import NOTEBOOK, ROOT
from wheel import copy_repository, make_wheel, variables

LIMIT_S = 1800  # of time, on machines that do other things too
PROCESSOR_S = 480  # so that it takes less than 8 minutes on two cores, with all that is installed
OLDEST = os.environ.get("OLDEST_PYTHON", "python3.12")  # as in the Makefile
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


def install(drive: Path) -> str | None:
    """Run the first cell, with another place for a mounted drive and without pip: what it would install."""
    code = "".join(cells("code")[0]["source"]).replace("/content/drive/MyDrive", str(drive))
    place: dict[str, Any] = {}
    exec(re.sub(r"^(\s*)%.*", r"\1pass", code, flags=re.MULTILINE), place)
    return str(place["found"][0].relative_to(drive.parent)) if place["found"] else None


def test_what_is_there_is_installed_a_wheel_before_a_zip_before_a_drive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, drive = tmp_path / "here", tmp_path / "drive"
    for folder in (here, drive / "cloudml_copy/cloudml_tf"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.0")
    (here / "other.zip").write_bytes(b"no zip")
    assert install(drive) is None  # and what is installed stays
    (drive / "cloudml_copy/cloudml_tf/__init__.py").touch()
    (drive / "cloudml_copy/pyproject.toml").touch()
    assert install(drive) == "drive/cloudml_copy"
    (drive / "cloudml_tf-0.1.0-py3-none-any.whl").touch()
    assert install(drive) == "drive/cloudml_tf-0.1.0-py3-none-any.whl"
    (here / "cloudml_tf").mkdir()
    for name in ("cloudml_tf/__init__.py", "pyproject.toml"):
        (here / name).touch()
    assert install(drive) == "here"
    with zipfile.ZipFile(here / "main.zip", "w") as archive:
        archive.writestr("repository-main/cloudml_tf/__init__.py", "")
    assert install(drive) == "here/main.zip"
    for number, version in enumerate(("0.2.0", "0.1.0")):
        (here / f"cloudml_tf-{version}-py3-none-any.whl").touch()
        os.utime(here / f"cloudml_tf-{version}-py3-none-any.whl", (number, number))
    assert install(drive) == "here/cloudml_tf-0.1.0-py3-none-any.whl"  # the newest file


def test_where_nothing_is_there_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SystemExit, match=r"nothing to install(.|\n)*drag(.|\n)*Drive(.|\n)*copy of the repository"):
        install(tmp_path / "drive")


def environment(home: Path, python: str, constraints: str) -> dict[str, str]:
    """The variables of a fresh environment in `home` that has Jupyter's kernel and nothing of ours."""
    subprocess.run([python, "-m", "venv", home], check=True)
    env = variables()
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
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(NOTEBOOK, folder)
    if versions == "pinned":
        shutil.copy(make_wheel(tmp_path / "copy"), folder)
    else:
        copy_repository(tmp_path / "zipped/cloudml_tf-main")
        shutil.make_archive(str(folder / "cloudml_tf-main"), "zip", tmp_path / "zipped")
    begun, before = time.perf_counter(), processor_s()
    line = ["jupyter-execute", "--inplace", "--timeout=900", "colab_training.ipynb"]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    used = processor_s() - before
    print(f"{versions}: {time.perf_counter() - begun:.0f} s, {used:.0f} s of processor time")
    check_outputs(json.loads((folder / "colab_training.ipynb").read_text()))
    assert used < PROCESSOR_S


def processor_s() -> float:
    """Seconds of processor time of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
