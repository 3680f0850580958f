"""The wheel trains in an empty folder, without the repository."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import TINY, merged
from snippets import ROOT
from wheel import make_wheel, variables

from cloudml_tf.config.run_folder import flat
from cloudml_tf.config.shipped import SHIPPED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment that holds the wheel; all else is read from this process's environment."""
    home = tmp_path_factory.mktemp("wheel")
    wheel = make_wheel(home / "copy")
    subprocess.run([sys.executable, "-m", "venv", home / "environment"], check=True)
    scripts = home / "environment/bin"
    line = [scripts / "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(line, check=True, env=variables())
    (site,) = (home / "environment/lib").glob("*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def test_the_wheel_holds_every_module(bin_folder: Path) -> None:
    (package,) = (bin_folder.parent / "lib").glob("*/site-packages/cloudml_tf")
    held, wanted = ({path.relative_to(home) for path in home.rglob("*.py")} for home in (package, ROOT / "cloudml_tf"))
    assert held == wanted


def test_the_wheel_trains_by_name_in_an_empty_folder(bin_folder: Path, tmp_path: Path) -> None:
    def run(*line: str) -> str:
        return subprocess.run(line, cwd=tmp_path, env=variables(), capture_output=True, text=True, check=True).stdout

    place = run(f"{bin_folder}/python", "-c", "import cloudml_tf; print(cloudml_tf.__file__)")
    assert Path(place.strip()).is_relative_to(bin_folder.parent)
    listed = json.loads(run(f"{bin_folder}/cloudml", "config", "list", "--json"))
    assert listed["configurations"] == SHIPPED
    assert {path.stem for path in Path(listed["folder"]).iterdir()} == {*SHIPPED, "schema"}
    tiny = merged(TINY, {"output": {"report": True}})
    changes = {key: value for key, value in flat(tiny).items() if key not in ("experiment_name", "split.kind")}
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    run(f"{bin_folder}/cloudml", "train", "tier1", "--run-dir", "run", *settings)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["training"]["epochs"] == TINY["training"]["max_epochs"]
    assert "<style>" in (tmp_path / "run/report.html").read_text()  # of page.css
    run(f"{bin_folder}/cloudml", "init", "campaign")  # of the starters' texts
    assert (tmp_path / "campaign/README.md").is_file()
