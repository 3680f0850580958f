"""The configurations that come with the package: found by name from everywhere, and put into the wheel."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from snippets import ROOT

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config
from cloudml_tf.config.shipped import SHIPPED, folder, located
from cloudml_tf.experiments.grid.cells import load_grid
from cloudml_tf.experiments.search.settings import load_search
from cloudml_tf.utils.errors import ConfigError


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which each test stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_files_are_named_and_listed_and_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.stem for path in (ROOT / "configs").glob("*.json")} == {*SHIPPED, "schema"}
    page = (ROOT / "docs/configurations.md").read_text()
    assert [name for name in SHIPPED if f"`configs/{name}.json`" not in page] == []
    assert main(["config", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder()), "configurations": SHIPPED}
    assert main(["config", "list"]) == 0
    assert "tutorial" in capsys.readouterr().out


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_name_is_understood_everywhere(name: str) -> None:
    grids, searches = ("ablation", "ablation_heights", "reproduce"), ("search", "search_heights")
    load = load_grid if name in grids else load_search if name in searches else load_config
    assert load(name, {}) == load(ROOT / f"configs/{name}.json", {})


def test_commands_take_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "tier1", "--print-config", "--set", "seed=5"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5
    assert main(["reproduce", "--rows", "none"]) == 2  # the shipped grid, which has no such row
    assert "the rows are: run 1" in capsys.readouterr().err


def test_a_path_is_a_path_and_what_is_neither_is_told_what_there_is(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = empty / "mine.json"
    own.write_text((ROOT / "configs/tier1.json").read_text())
    (empty / "bare").write_text(own.read_text())
    assert located("bare") == Path("bare")
    assert located("no/tier1") == Path("no/tier1")
    assert located("tier1.json") == Path("tier1.json")
    with pytest.raises(ConfigError, match=r"^tier: is no file.*There are tutorial, tier1.*`cloudml config list`"):
        located("tier")
    with pytest.raises(ConfigError, match=r"Did you mean mine\.json\?"):
        load_config("mine")
    assert main(["train", "n" * 300]) == 2
    capsys.readouterr()
    own.rename("tier1.json")
    assert located("tier1") == folder() / "tier1.json"
    assert "for the file that lies here say tier1.json" in capsys.readouterr().err
    (empty / "tier1").touch()
    assert located("tier1") == Path("tier1")  # one's own file comes first


def test_a_search_and_a_grid_of_ones_own_are_around_a_shipped_one(empty: Path) -> None:
    (empty / "base.json").write_text((ROOT / "configs/example.json").read_text())
    for base, name in (("tier1", "tier1"), ("base.json", "example")):
        content = {"experiment_name": "own", "base": base, "space": {"seed": [1, 2]}, "tuner": {"kind": "grid"}}
        (empty / "search.json").write_text(json.dumps(content))
        found = load_search(empty / "search.json").config()
        assert found.model == load_config(name).model
    grid = {"experiment_name": "own", "base": "tier1", "seeds": [1], "rows": {"one": {"set": {}}}}
    (empty / "grid.json").write_text(json.dumps(grid))
    assert load_grid(empty / "grid.json", {}).base["experiment_name"] == "tier1_variance_fix_test"


def test_the_wheel_takes_all_files_of_the_package() -> None:
    """Files that are no modules are matched by a pattern of pyproject.toml; setup.py finds the packages."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    homes = {"cloudml_tf": ROOT / "cloudml_tf", "cloudml_tf.configs": ROOT / "configs"}
    shipped = {path for name, patterns in data.items() for each in patterns for path in homes[name].glob(each)}
    there = {Path(home, name) for top in homes.values() for home, _, names in os.walk(top) for name in names}
    assert {path for path in there if path.suffix not in (".py", ".pyc")} == shipped
    modules = {path.parent for path in there if path.suffix == ".py"}
    assert all((home / "__init__.py").is_file() for home in modules)  # or find_packages would pass it over
    assert re.search(r'package_dir=\{"cloudml_tf.configs": "configs"\}', (ROOT / "setup.py").read_text())
