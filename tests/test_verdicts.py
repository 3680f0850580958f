"""`diagnose` and `compare` on real run folders, through the command line."""

import json
import shutil
from pathlib import Path

import pytest

from cloudml_tf.cli import main
from cloudml_tf.config import load_config, parse_overrides


def document(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out)


def test_a_diagnosis_names_its_evidence_and_a_change_that_the_configuration_takes(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(finished), "--json"]) == 0
    found = document(capsys)["diagnosis"]
    assert found["verdict"]
    assert found["summary"]
    for finding in found["findings"]:
        assert finding["evidence"]
        load_config(finished / "config.json", parse_overrides(finding["set"]))


def test_a_run_that_was_cut_off_is_diagnosed_from_what_is_there(finished: Path, tmp_path: Path, capsys) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(finished, cut)
    for name in ("metrics.json", "report.html", "predictions.npz"):
        (cut / name).unlink()
    assert main(["diagnose", str(cut), "--quick", "--json"]) == 0
    assert document(capsys)["diagnosis"]["verdict"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_run_beside_itself_has_no_lead(finished: Path, tmp_path: Path, capsys) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    assert main(["compare", str(finished), str(again), "--run-dir", str(tmp_path / "out"), "--json"]) == 0
    found = document(capsys)
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {key: found[key] for key in written} == written
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_one_run_is_nothing_to_compare(finished: Path, tmp_path: Path, capsys) -> None:
    assert main(["compare", str(finished), "--run-dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err
