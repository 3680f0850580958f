"""Grids: every cell is checked first, failures stay, a killed grid goes on, the summary is that of the cells."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.experiments.grid.cells import cells, load_grid
from cloudml_tf.experiments.grid.summary import paired, spread_of
from cloudml_tf.utils.errors import ConfigError

QUICK = {"training": {"max_epochs": 1}}


@pytest.fixture
def grid_file(tiny_content, tmp_path: Path):
    """A function: changes -> the path of a grid file over the tiny configuration."""

    def make(base: dict | None = None, **changes: object) -> Path:
        content = {
            "experiment_name": "grid",
            "base": tiny_content(**{**QUICK, **(base or {})}),
            "seeds": [1, 2],
            "reference": "plain",
            "rows": {"plain": {"expected": "R² > 0"}, "five": {"set": {"temporal_frames": 5}}},
            **changes,
        }
        path = tmp_path / "grid.json"
        path.write_text(json.dumps(content))
        return path

    return make


def test_variants_and_rows_are_laid_over_the_base_in_that_order(grid_file) -> None:
    path = grid_file(
        set={"training.batch_size": 8},
        variants={"a": {"model.dropout": 0.3}, "b": {"model.dropout": 0.4}},
        rows={"plain": {}, "other": {"set": {"model.dropout": 0.5}, "variants": ["b"]}},
    )
    found = cells(load_grid(path, {"training.learning_rate": 1e-4}))
    assert [(c.variant, c.row, c.seed) for c in found[:3]] == [("a", "plain", 1), ("b", "plain", 1), ("b", "other", 1)]
    assert [c.config.model.dropout for c in found[:3]] == [0.3, 0.4, 0.5]
    assert {c.config.training.batch_size for c in found} == {8}
    assert {c.config.training.learning_rate for c in found} == {1e-4}
    assert [c.config.seed for c in found] == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"rows": {"plain": {"set": {"model.dropuot": 0.1}}}},
            "row plain: unknown key 'model.dropuot'; did you mean 'model.dr",
        ),
        ({"reference": "none"}, "reference names row 'none'"),
        ({"rows": {"plain": {"against": "none"}}}, "is against 'none'"),
        ({"rows": {"plain": {"variants": ["x"]}}}, "names variant x"),
        ({"rows": {"a/b": {}}, "reference": None}, "names a folder"),
        ({"seeds": []}, "'seeds'"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_trained(grid_file, changes: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        cells(load_grid(grid_file(**changes), {}))


def test_files_that_are_no_grid_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such grid file"):
        load_grid(tmp_path / "none.json", {})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON at line 1"):
        load_grid(tmp_path / "bad.json", {})
    content = {"experiment_name": "grid", "base": "nowhere.json", "rows": {"plain": {}}}
    (tmp_path / "lost.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"nowhere\.json: no such configuration file"):
        load_grid(tmp_path / "lost.json", {})


@pytest.mark.parametrize("name", ["reproduce", "ablation", "ablation_heights"])
def test_the_shipped_grids_are_valid(name: str) -> None:
    grid = load_grid(Path(__file__).parents[1] / "configs" / f"{name}.json", {})
    assert len(grid.seeds) >= 3
    for cell in cells(grid):
        assert cell.config.experiment_name == name


def test_a_pair_of_rows_by_hand() -> None:
    def scored(*values: float) -> dict:
        return {n: {"test": {"r2": v}} for n, v in enumerate(values)}

    found = paired(scored(0.5, 0.6, 0.7), scored(0.4, 0.4, 0.4), [0, 1, 2])
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert found["mean"] == pytest.approx(0.2)
    assert found["interval"] == pytest.approx([0.2 - half, 0.2 + half])
    assert not found["beyond_chance"]
    assert spread_of(np.array([1.0, np.nan, 3.0])) == {"mean": 2.0, "std": pytest.approx(2**0.5), "median": 2.0}
    assert spread_of(np.array([np.nan]))["mean"] is None


@pytest.mark.slow
def test_a_killed_grid_goes_on_keeps_failures_and_is_summed_up(grid_file, tmp_path: Path, capsys) -> None:
    rows = {
        "plain": {"expected": "R² > 0"},
        "five": {"set": {"temporal_frames": 5}},
        "lost": {"set": {"overweight.flights": ["nowhere"]}},
    }
    path, home = grid_file(rows=rows), tmp_path / "home"
    command = [sys.executable, "-m", "cloudml_tf", "ablate", str(path), "--run-dir", str(home), "--jobs", "1"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    first = home / "plain" / "seed1" / "metrics.json"
    deadline = time.time() + 300
    while not first.is_file() and time.time() < deadline:
        time.sleep(0.1)
    worker_mark = home / "five" / "seed1.running"
    while not worker_mark.is_file() and time.time() < deadline:
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGKILL)  # the parent alone: its workers must not live on
    started.wait()
    was = first.stat().st_mtime_ns
    time.sleep(1.5)

    assert main(["ablate", str(path), "--run-dir", str(home), "--jobs", "1"]) == 0
    assert first.stat().st_mtime_ns == was  # a finished cell is not trained again
    found = json.loads((home / "summary.json").read_text())
    rows_found = found["variants"][""]
    assert {name: row["seeds"] for name, row in rows_found.items()} == {"plain": [1, 2], "five": [1, 2], "lost": []}
    values = [json.loads((home / "plain" / f"seed{s}" / "metrics.json").read_text())["test"]["r2"] for s in (1, 2)]
    assert rows_found["plain"]["r2"]["mean"] == pytest.approx(np.mean(values))
    assert rows_found["plain"]["r2"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert "against_reference" in rows_found["five"]
    rmse = {
        row: [json.loads((home / row / f"seed{s}" / "metrics.json").read_text())["test"]["rmse"] for s in (1, 2)]
        for row in ("plain", "five")
    }
    change = np.mean(np.array(rmse["five"]) / np.array(rmse["plain"])) - 1
    assert rows_found["five"]["rmse_change"]["mean"] == pytest.approx(change)
    assert rows_found["five"]["against"] == "plain"
    assert len(found["failed"]) == 2
    assert "nowhere" in found["failed"][0]["error"]
    shown = capsys.readouterr().out
    assert "R² > 0" in shown
    page = (home / "grid.html").read_text()
    assert "nowhere" in page
    assert 'src="http' not in page
    assert 'href="http' not in page

    assert main(["ablate", str(path), "--run-dir", str(home), "--reference", "five"]) == 0  # nothing is trained again
    turned = json.loads((home / "summary.json").read_text())["variants"][""]["plain"]["against_reference"]
    assert turned["mean"] == pytest.approx(-rows_found["five"]["against_reference"]["mean"])
    capsys.readouterr()

    changed = grid_file(rows={**rows, "five": {"set": {"temporal_frames": 7}}})
    assert main(["ablate", str(changed), "--run-dir", str(home)]) == 2
    assert "temporal_frames was 5, but is 7 in the grid now" in capsys.readouterr().err


def test_the_gate_keeps_the_other_rows_from_being_trained(grid_file, tmp_path: Path, capsys) -> None:
    path, home = grid_file(base={"training": {"max_epochs": 1, "learning_rate": 1e-9}}, gate="plain"), tmp_path / "home"
    assert main(["ablate", str(path), "--run-dir", str(home), "--jobs", "1", "--seeds", "1"]) == 2
    assert "passed the acceptance" in capsys.readouterr().err
    assert not (home / "five").exists()
    assert main(["ablate", str(path), "--reference", "six"]) == 2
    assert "--reference names 'six'; the rows are: plain; five" in capsys.readouterr().err
    assert main(["ablate", str(path), "--rows", "six"]) == 2
    assert "--rows names 'six'" in capsys.readouterr().err
