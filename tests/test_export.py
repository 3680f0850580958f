"""The verb `export` and the SavedModel: loadable without this package, named and typed, and the same numbers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config
from cloudml_tf.config.run_folder import read_run, run_of
from cloudml_tf.data.prepare import prepare
from cloudml_tf.inference.export import card
from cloudml_tf.inference.export.writer import target_folder, warn_of_replacement
from cloudml_tf.utils.console import Console

WITHOUT_US = """
import sys, json
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
specs = serve.structured_input_signature[1]
print(json.dumps({k: [v.dtype.name, list(v.shape)] for k, v in specs.items()}))
x = np.load(sys.argv[2])
out = serve(**{k: tf.constant(x[k], tf.float32) for k in ("frames", "sun_angles_deg")})
print(json.dumps({k: v.numpy().reshape(-1).tolist() for k, v in out.items()}))
print(json.dumps([m for m in sys.modules if m.startswith("cloudml")]))
"""


def flights_of(run: Path) -> Path:
    """The folder of the run's test flight."""
    files = json.loads((run / "data.json").read_text())["files"]
    return Path(files["sim03"]["camera"]).parent


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    return finished.parent / "savedmodels" / "tiny"


def test_another_process_gets_our_numbers_without_this_package(finished: Path, exported: Path, tmp_path: Path) -> None:
    test = prepare(load_config(finished / "config.json")).parts["test"]
    np.savez(tmp_path / "x.npz", **test.inputs())
    command = [sys.executable, "-c", WITHOUT_US, str(exported), str(tmp_path / "x.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    signature, out, modules = (json.loads(line) for line in done.stdout.strip().splitlines()[-3:])
    assert signature["frames"] == ["float32", [None, 3, 12, 12, 1]]
    assert signature["sun_angles_deg"] == ["float32", [None, 3, 2]]
    assert modules == []
    expected = np.load(finished / "predictions.npz")["test_prediction"]
    np.testing.assert_allclose(out["optical_depth"], expected, rtol=1e-4)


def test_the_export_says_how_to_use_it(exported: Path, finished: Path) -> None:
    record = json.loads((exported / "cloudml.json").read_text())
    found = record["parity"]["formats"]["savedmodel"]
    assert max(found["max_relative"], found["max_std"]) <= record["parity"]["warn_above"]
    assert found["within"]
    assert record["inputs"]["frames"] == [None, 3, 12, 12, 1]
    assert record["output"] == "optical_depth"
    assert json.loads((finished / "metrics.json").read_text())["export"]["parity"] == record["parity"]


def test_what_looks_into_a_run_takes_its_export_while_both_lie_there(
    exported: Path, finished: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    assert run_of(finished) == finished
    assert run_of(exported) == finished.resolve()
    monkeypatch.chdir(finished.parent)
    assert run_of(Path("savedmodels/tiny")) == Path(finished.name)
    assert main(["diagnose", "savedmodels/tiny", "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == finished.name
    assert main(["compare", "savedmodels/tiny", finished.name]) == 2
    assert f"{finished.name}: is named twice" in capsys.readouterr().err

    moved = shutil.copytree(exported, tmp_path / "moved")
    other = shutil.copytree(exported, tmp_path / "other")
    record = json.loads((other / "cloudml.json").read_text())
    record |= {"run_folder": str(finished.resolve()), "data": {}}  # of a training that is no longer there
    (other / "cloudml.json").write_text(json.dumps(record))
    for model in (moved, other):
        for words in (["diagnose", str(model)], ["compare", str(model), str(finished)]):
            assert main(words) == 2
            needs = (
                f"{model}: is an exported model, and this command needs the folder of its run, tiny/{finished.name}."
            )
            assert capsys.readouterr().err == f"cloudml {words[0]}: {needs}\n"


@pytest.mark.slow
def test_export_again_and_replace(finished: Path, tmp_path: Path, capsys) -> None:
    for _ in range(2):  # the second takes the place of the first
        assert main(["export", str(finished), "--run-dir", str(tmp_path / "model"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.split("}\n{")[0] + "}")
    assert found["export"] == str(tmp_path / "model")
    assert found["files"] == {"savedmodel": str(tmp_path / "model" / "saved_model.pb")}
    assert {p.name for p in tmp_path.iterdir()} == {"model"}


@pytest.mark.slow
def test_evaluate_gives_a_run_and_its_export_the_same_scores(
    finished: Path, exported: Path, tmp_path: Path, capsys
) -> None:
    folder = flights_of(finished)
    found = []
    for name, source in (("run", finished), ("export", exported)):
        target = tmp_path / name
        assert main(["evaluate", str(source), "--flights", str(folder), "--run-dir", str(target), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"])
        assert (target / "report.html").is_file()
        assert (target / "plots" / "scatter.png").is_file()
    trained = json.loads((finished / "metrics.json").read_text())
    for key in ("r2", "variance_ratio", "rmse", "n"):
        assert found[0]["test"][key] == pytest.approx(trained["test"][key], rel=1e-5)
        assert found[1]["test"][key] == pytest.approx(trained["test"][key], rel=1e-4)
        again, once = found[0]["baselines"]["ridge"]["test"], trained["baselines"]["ridge"]["test"]
        assert again[key] == pytest.approx(once[key], rel=1e-3)
    assert found[0]["tier"]["name"] == trained["tier"]["name"]


def test_evaluate_refuses_other_frames(finished: Path, capsys) -> None:
    folder = flights_of(finished)
    arguments = ["evaluate", str(finished), "--flights", str(folder), "--set", "data.camera.rows=[0, 8]"]
    assert main(arguments) == 2
    assert "was trained on frames of shape (12, 12, 1)" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused(finished: Path, tmp_path: Path, capsys) -> None:
    for name in ("config.json", "data.json", "best.weights.h5"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    (tmp_path / "best.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n truncated")
    assert main(["export", str(tmp_path), "--run-dir", str(tmp_path / "model")]) == 2
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_an_export_takes_the_place_of_nothing_but_an_export(finished: Path, capsys) -> None:
    before = sorted(p.name for p in finished.iterdir())
    assert main(["export", str(finished), "--run-dir", str(finished)]) == 2
    assert "is not an exported model; it will not be overwritten" in capsys.readouterr().err
    assert sorted(p.name for p in finished.iterdir()) == before


def test_a_finished_model_is_what_it_is(finished: Path, capsys) -> None:
    flights = str(flights_of(finished))
    for command in (["export", str(finished)], ["evaluate", str(finished), "--flights", flights]):
        assert main([*command, "--set", "preprocessing.log_offset=0.1"]) == 2
        assert "--set preprocessing.log_offset: cannot be changed after training" in capsys.readouterr().err


def test_a_training_says_first_whose_export_it_will_replace(finished: Path, capsys) -> None:
    config = read_run(finished)[0]
    warn_of_replacement(Console(), config, finished)
    assert capsys.readouterr().out == ""  # a run may replace its own
    warn_of_replacement(Console(), config, finished.with_name("another"))
    shown = capsys.readouterr().out
    assert f"warning: {target_folder(config)} holds the export of tiny/{finished.name}" in shown
    assert "set experiment_name or output.savedmodels" in shown
    without = config.model_copy(update={"experiment_name": "not_exported_yet"})
    warn_of_replacement(Console(), without, finished)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"a": {"profiles opaque": 1000}, "b": {"profiles opaque": 234}}, "were left out: 1,234 profiles."),
        ({"a": {"profiles opaque": 0}}, "No column was marked as one that the lidar cannot see through"),
        ({}, "were left out where its files mark them."),
    ],
)
def test_a_card_says_what_became_of_opaque_columns(counts: dict, text: str) -> None:
    assert text in card._opaque({"counts": counts})
