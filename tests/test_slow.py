"""What takes minutes: the bars of the main job on one seed. `make test-all`."""

import json
from pathlib import Path

import pytest
from test_les import SHARED

from cloudml_tf.commands.main import main

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def run(tmp_path: Path, config: str, *options: str) -> dict:
    arguments = ["train", str(ROOT / "configs" / config), "--run-dir", str(tmp_path / "run")]
    assert main([*arguments, "--set", "output.export=false", *options]) == 0
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_tier1_beats_boosting_stays_under_the_oracle_and_is_accepted(tmp_path: Path) -> None:
    metrics = run(tmp_path, "tier1.json")
    network = metrics["test"]["r2"]
    assert metrics["baselines"]["gradient_boosting"]["test"]["r2"] + 0.05 < network < metrics["oracle"]["test"]["r2"]
    assert metrics["phase3"]["passed"], metrics["phase3"]
    assert metrics["tier"]["name"] in ("good", "excellent")


def test_where_there_is_no_signal_nothing_is_found(tmp_path: Path) -> None:
    short = ("--set", "training.max_epochs=6", "--set", "data.simulation.preset=no_signal")
    metrics = run(tmp_path, "tier1.json", *short)
    assert metrics["test"]["r2"] < 0.02
    assert abs(metrics["test"]["correlation"]) < 0.15
    assert metrics["tier"]["name"] == "none"


@pytest.mark.skipif(not (SHARED / "data/les/flights").is_dir(), reason="needs the LES flights: set CLOUDML_SHARED")
def test_a_fold_of_the_third_party_imagery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDML_SHARED", str(SHARED))
    split = '{"kind": "leave_one_out", "test": "les03", "exclude": ["les10"]}'
    test = run(tmp_path, "les.json", "--set", f"split={split}")["test"]
    assert test["rmse"] < 0.62
    assert 0.93 < test["variance_ratio"] < 1.05
