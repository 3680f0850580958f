"""The commands of README and docs, run as they stand, a page in one folder after the other: `make test-all`.

They run in a doll's house: a folder with the names that the pages use (configs, flights, runs) and everything in it
tiny, so that `cloudml train configs/tier1.json` takes seconds. The tutorial's own configuration is as it is shipped.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from snippets import PAGES, ROOT, Snippet, snippets

from cloudml_tf.config.load import set_by_path

pytestmark = pytest.mark.slow

FLIGHTS = {"path": "flights", "camera": {"channels": ["Product/Signal"]}}
SPLIT = {"kind": "flights", "train": ["sim01", "sim02", "sim03", "sim04", "sim05"], "val": ["sim06"], "test": ["sim08"]}
SMALL: dict[str, Any] = {
    "data.flights": None,
    "data.path": FLIGHTS["path"],
    "data.camera": FLIGHTS["camera"],
    "split": SPLIT,
    "target": {"name": "optical_depth"},
    "model": TINY["model"],
    "training.max_epochs": 2,
    "training.batch_size": 16,
    "pretraining.max_epochs": 6,
    "pretraining.frames_per_epoch": 1024,
    "pretraining.force": True,
    "evaluation.bootstrap_samples": 100,
}
SIMULATION = {**TINY["data"]["simulation"], "flight_count": 8}
ONE = "runs/tier1_variance_fix_test/20260101-120000"
COPIES = ("runs/tier1_variance_fix_test/20260102-120000", "runs/old/20260101-120000")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the pages' commands find what they name."""
    home = tmp_path_factory.mktemp("house")
    (home / "bin").mkdir()
    for name, words in {"cloudml": "-m cloudml_tf ", "python": ""}.items():
        (home / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (home / "bin" / name).chmod(0o755)
    for folder in ("configs", "benchmarks", "savedmodels/example"):
        shutil.copytree(ROOT / folder, home / folder)
    for name in ("tier1", "tier1_base", "les", "pretrain"):
        content = json.loads((home / f"configs/{name}.json").read_text())
        for key, value in SMALL.items():
            set_by_path(content, key, value)
        (home / f"configs/{name}.json").write_text(json.dumps(content))
    search = json.loads((home / "configs/search.json").read_text())
    search["tuner"]["trials"] = 2
    search["set"]["training.max_epochs"] = 1
    (home / "configs/search.json").write_text(json.dumps(search))
    for name in ("new.json", "my_campaign/config.json"):
        (home / name).parent.mkdir(exist_ok=True)
        shutil.copy(home / "configs/tier1.json", home / name)
    (home / ".local/share/bash-completion/completions").mkdir(parents=True)
    sizes = " ".join(f"--set {key}={value}" for key, value in SIMULATION.items())
    shell(
        home, f"cloudml simulate made {sizes} && mv made/* flights && cloudml train configs/tier1.json --run-dir {ONE}"
    )
    for copy in COPIES:
        shutil.copytree(home / ONE, home / copy)
    return home


def shell(home: Path, code: str) -> None:
    """Run a block with `cloudml` and `python` of this interpreter first in the path."""
    places = {"HOME": str(home), "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    env = {**os.environ, **places, "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    line = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(line, cwd=home, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def runnable(page: Path) -> list[Snippet]:
    """The blocks that belong to a page's story, if it has commands."""
    found = [s for s in snippets(page) if s.language != "json" and not s.reason]
    return found if any(s.language == "sh" or s.mark for s in found) else []


ELSEWHERE = "own-data.md"  # tests/test_own_data.py runs it, and looks at what it prints


@pytest.mark.parametrize(
    "page", [page for page in PAGES if runnable(page) and page.name != ELSEWHERE], ids=lambda page: page.name
)
def test_the_commands_of_a_page_run(page: Path, house: Path, tmp_path: Path) -> None:
    home = tmp_path / "house"
    shutil.copytree(house, home)
    for snippet in runnable(page):
        if snippet.language == "sh":
            shell(home, snippet.code)
        else:
            (home / "snippet.py").write_text(snippet.code)
            shell(home, "python snippet.py")
