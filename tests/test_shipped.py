"""Shipped configurations by their bare names, in a clone and in a wheel."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from cloudml_tf.config import shipped
from cloudml_tf.config.load import load_config
from cloudml_tf.experiments.grid.cells import load_grid
from cloudml_tf.experiments.search.settings import load_search
from cloudml_tf.utils.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_a_bare_name_is_a_shipped_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("tier1") == load_config(ROOT / "configs/tier1.json")
    assert load_search(Path("search")).base["training"]["max_epochs"] == 30  # over tier1.json, found beside it
    assert load_grid(Path("ablation_heights"), {}).base["experiment_name"] == "tier1_base"
    with pytest.raises(ConfigError, match=r"tier: no such configuration file.* Shipped are .*tier1, tier1_base"):
        load_config("tier")
    (tmp_path / "tier1").write_text("{}")  # one's own file comes first
    with pytest.raises(ConfigError, match="experiment_name"):
        load_config("tier1")
    assert "schema" not in shipped.names()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("uv") is None, reason="needs uv, with which the Makefile builds")
def test_a_wheel_trains_in_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "-o", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    wanted = {f"cloudml_tf/configs/{path.name}" for path in (ROOT / "configs").glob("*.json")}
    assert wanted | {"cloudml_tf/py.typed", "cloudml_tf/reports/page.css"} <= set(held)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "cloudml_tf").rglob("*.py")}
    assert {name for name in held if name.endswith(".py")} == modules
    home, site = tmp_path / "empty", tmp_path / "site"
    home.mkdir()
    zipfile.ZipFile(wheel).extractall(site)  # as pip would, beside this environment's own packages
    small = {"max_epochs": 1, "sequences_per_epoch": 64}
    changes = [f"training.{name}={value}" for name, value in small.items()]
    changes += ["data.simulation.frames_per_flight=200", "output.export=false", "output.report=false"]
    options = [word for change in changes for word in ("--set", change)]
    environment = {**os.environ, "PYTHONPATH": str(site), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "cloudml_tf", "train", "tier1", *options, "--run-dir", "run"]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 3, 4), done.stderr[-2000:]
    assert (home / "run" / "metrics.json").is_file()
