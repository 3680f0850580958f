"""ONNX and LiteRT beside the SavedModel: the same numbers, without TensorFlow, for every kind of network."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import TINY, merged

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.inference.export import parity
from cloudml_tf.inference.export.convert import convert
from cloudml_tf.inference.export.formats import FORMATS, Format, open_export, parse_formats
from cloudml_tf.inference.export.writer import Source, export_model, write_savedmodel
from cloudml_tf.utils.errors import ConfigError, ParityError, RunError
from cloudml_tf.utils.files import write_json

SHAPE = (12, 10, 2)
# Between them: T = 1 and 3, each head, each target, mirror images, features, and all of preprocessing.
KINDS: dict[str, dict[str, Any]] = {
    "quantiles, mirror images, features": {
        "model": {"head": "quantile", "mirror_average": True},
        "loss": {"base": "pinball"},
        "data": {"features": [{"name": "a", "file": "camera", "dataset": "a"}]},
    },
    "one frame, bins, log target": {
        "temporal_frames": 1,
        "target": {"transform": "log", "smearing": True},
        "preprocessing": {"log_offset": 0.01, "flat_field": True},
        "model": {"head": "histogram", "contrast_boxes": [3]},
    },
    "no sun, straight line, trained in bfloat16": {
        "target": {"name": "cloud_base_km"},
        "preprocessing": {"per_frame": True},
        "data": {"sun_angles": False},
        "model": {"nadir_linear": True, "architecture": "no_attention"},
        "training": {"mixed_precision": True},
    },
}


def scaling_of(config: Config) -> Scaling:
    """Made-up training statistics."""
    rng, log = np.random.default_rng(1), config.target.transform == "log"
    return Scaling(
        target=TargetScaling(-0.3 if log else 0.9, 0.5, log, smearing=1.1 if log else 1.0),
        frame_mean=[-1.5, -1.2] if config.preprocessing.log_offset else [0.2, 0.3],
        frame_std=[0.3, 0.2] if config.preprocessing.log_offset else [0.05, 0.04],
        flat_field=rng.uniform(0.8, 1.2, SHAPE).tolist() if config.preprocessing.flat_field else None,
        feature_mean=[100.0] * len(config.data.features),
        feature_std=[20.0] * len(config.data.features),
    )


def description_of(config: Config) -> dict[str, Any]:
    """As in data.json, of flights whose files are gone."""
    part = {"flights": ["gone"], "sequences": 5, "label_mean": 0.9, "label_std": 0.5}
    files = {"gone": {"camera": "gone/a.h5", "lidar": "gone/b.hdf5", "navigation": None}}
    description = {"split": dict.fromkeys(("train", "val", "test"), part), "files": files}
    return {**description, "scaling": scaling_of(config).to_json(), "frame_shape": list(SHAPE), "nadir": [6, 5]}


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, id=kind, marks=[pytest.mark.slow] * (n > 0)) for n, kind in enumerate(KINDS)],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained network in all formats, its inputs, and Keras's answer to them."""
    import keras

    from cloudml_tf.train.network import make_model, start_keras

    config = parse_config(merged(TINY, KINDS[request.param]))
    start_keras(config)
    try:
        description = description_of(config)
        model = make_model(config, scaling_of(config), SHAPE, (6, 5))
    finally:
        keras.config.set_dtype_policy("float32")
    folder = tmp_path_factory.mktemp("kinds") / "model"
    record = export_model(model, folder, config, description, formats=tuple(FORMATS))
    assert record["source"] == "drawn from the training statistics"
    shapes = {tensor.name: (None, *tensor.shape[1:]) for tensor in model.inputs}
    offset = config.preprocessing.log_offset
    inputs = parity.drawn_sequences(shapes, scaling_of(config), offset, seed=7, count=23).inputs
    answers = open_export(folder, "savedmodel").outputs(inputs)
    np.savez(folder.parent / "inputs.npz", **inputs)
    np.savez(folder.parent / "answers.npz", **answers)
    if not config.training.mixed_precision:
        z = np.asarray(model(inputs, training=False))[:, 0]
        np.testing.assert_allclose(answers[config.target.name], scaling_of(config).target.physical(z), rtol=1e-4)
    return folder


WITHOUT_TENSORFLOW = """
import importlib.abc, json, re, sys
import h5py
import numpy as np

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "cloudml_tf"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
card, inputs = open("model_card.md").read(), dict(np.load("../inputs.npz"))
found = {}
for code in re.findall(r"```python\\n(.*?)```", card, re.DOTALL):
    name = "savedmodel" if "tensorflow" in code else "onnx" if "onnx" in code else "litert"
    if name == "savedmodel":
        continue
    for size in (1, 23, 4):
        names = {key: value[:size] for key, value in inputs.items()}
        exec(code.replace("print(", "values = ("), names)
        found[f"{name} {size}"] = np.asarray(names["values"]).reshape(-1).tolist()
print(json.dumps([found, [m for m in sys.modules if m.split(".")[0] in ("tensorflow", "keras")]]))
"""


def test_the_cards_own_lines_run_where_tensorflow_cannot_be_imported(exported: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=exported)
    assert done.returncode == 0, done.stderr
    found, modules = json.loads(done.stdout.strip().splitlines()[-1])
    assert modules == []
    assert set(found) == {f"{name} {size}" for name in ("onnx", "litert") for size in (1, 23, 4)}
    expected = np.load(exported.parent / "answers.npz")
    output = json.loads((exported / "cloudml.json").read_text())["output"]
    for values in found.values():
        np.testing.assert_allclose(values, expected[output][: len(values)], rtol=1e-4)


def test_the_record_and_the_files_are_of_one_kind(exported: Path) -> None:
    record = json.loads((exported / "cloudml.json").read_text())
    assert record["files"] == {name: form.file for name, form in FORMATS.items()}
    found = record["parity"]["formats"]
    assert all(part["within"] and part["max_relative"] < 1e-4 and part["max_std"] < 1e-4 for part in found.values())
    assert all(part["bytes"] > 1000 for part in found.values())
    assert record["versions"]["onnx"]


def test_onnx_names_types_and_any_batch(exported: Path) -> None:
    import onnxruntime

    record = json.loads((exported / "cloudml.json").read_text())
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    found = {tensor.name: (tensor.type, tensor.shape) for tensor in session.get_inputs()}
    assert found == {name: ("tensor(float)", ["batch", *shape[1:]]) for name, shape in record["inputs"].items()}
    assert [tensor.shape for tensor in session.get_outputs()] == [["batch", 1]]


@pytest.fixture(scope="module")
def everything(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run in all formats, through the command line."""
    folder = tmp_path_factory.mktemp("everything") / "model"
    assert main(["export", str(finished), "--format", "litert,onnx,savedmodel", "-o", str(folder)]) == 0
    return folder


@pytest.mark.no_cover
def test_all_formats_answer_as_the_run_did(finished: Path, everything: Path) -> None:
    test = prepare(load_config(finished / "config.json")).parts["test"]
    expected = np.load(finished / "predictions.npz")["test_prediction"]
    for name in FORMATS:
        found = open_export(everything, name, threads=1).outputs(test.inputs())["optical_depth"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=name)
    record = json.loads((everything / "cloudml.json").read_text())["parity"]
    assert (record["source"], record["sequences"]) == ("of flight sim03", len(test))


def test_the_card_says_what_one_has_to_know(finished: Path, everything: Path) -> None:
    card = (everything / "model_card.md").read_text()
    metrics = json.loads((finished / "metrics.json").read_text())
    for text in (
        "Predicts the cloud optical depth",
        "| input `frames` | (n, 3, 12, 12, 1) |",
        "| output `optical_depth` | (n, 1) |",
        "| training | sim01 | 100 |",
        f"| **this model** | {metrics['test']['r2']:.3f} [",
        "| ridge |",
        "| oracle",
        f"r² = {metrics['test']['r2_ceiling']:.3f}",
        f"Tier: {metrics['tier']['name']}",
        "None: the prediction is one number without an uncertainty",
        "simulated flights; not tried on a real camera",
        "Trained on labels from 0.1 to 2 alone",
        "solar zenith, degrees",
        "| ONNX | model.onnx |",
        "import onnxruntime",
        "keras ",
    ):
        assert text in card, text
    description = json.loads((finished / "data.json").read_text())
    ranges, far = description["ranges"], description["sun_outside_training"]
    assert far[-1].startswith("test flight sim03: ")
    assert all(f"- Evaluated under a sun outside the training range: {text}.\n" in card for text in far)
    low, high = ranges["radiance"][0]["low"], ranges["radiance"][0]["high"]
    assert f"| {low:.4g} | {high:.4g} |" in card
    assert 0 < low < high
    assert ranges["label"]["minimum"] >= 0.1


@pytest.mark.slow
def test_one_format_alone_and_what_lies_there_is_kept_current(finished: Path, tmp_path: Path, capsys) -> None:
    arguments = ["export", str(finished), "--output", str(tmp_path / "model"), "--json", "--format"]
    assert main([*arguments, "litert"]) == 0
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.tflite", "cloudml.json", "model_card.md"}
    capsys.readouterr()
    assert main([*arguments, "savedmodel"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["parity"]["formats"]) == list(found["files"]) == ["savedmodel", "litert"]
    assert not [p for p in tmp_path.iterdir() if p.name != "model"]


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_predict_takes_a_folder_without_a_savedmodel(
    finished: Path, everything: Path, tmp_path: Path, name: str
) -> None:
    for kept in (name, "cloudml.json"):
        (tmp_path / kept).write_bytes((everything / kept).read_bytes())
    flight = Path(json.loads((finished / "data.json").read_text())["files"]["sim03"]["camera"]).parent
    found = []
    for model in (finished, tmp_path):
        assert (
            main(["predict", str(model), str(flight), "-o", str(tmp_path / "out.nc"), "--set", "output.report=false"])
            == 0
        )
        with h5py.File(tmp_path / "out.nc") as file:
            found.append(file["cloud_optical_depth"][()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert np.isfinite(found[0]).sum() > 50


def test_evaluate_takes_a_folder_without_a_savedmodel(finished: Path, everything: Path, tmp_path: Path, capsys) -> None:
    for name in ("model.onnx", "cloudml.json"):
        (tmp_path / name).write_bytes((everything / name).read_bytes())
    flight = Path(json.loads((finished / "data.json").read_text())["files"]["sim03"]["camera"]).parent
    options = ["--set", "evaluation.baselines=false", "--run-dir", str(tmp_path / "scores"), "--json"]
    assert main(["evaluate", str(tmp_path), "--flights", str(flight), *options]) == 0
    trained = json.loads((finished / "metrics.json").read_text())["test"]["rmse"]
    assert json.loads(capsys.readouterr().out)["metrics"]["test"]["rmse"] == pytest.approx(trained, rel=1e-4)


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_refused_with_its_own_exit_code(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    arguments = ["export", str(finished), "-o", str(tmp_path / "model")]
    with monkeypatch.context() as strict:
        strict.setattr(parity, "FAIL_ABOVE", -1.0)
        assert main(arguments) == 6
    assert "SavedModel differs from the Keras model by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(parity, "WARN_ABOVE", -1.0)
    assert main(arguments) == 0
    assert "warning: SavedModel differs from Keras by more than" in capsys.readouterr().out


def test_how_a_difference_is_counted() -> None:
    plain, log = TargetScaling(1.0, 0.5, log=False), TargetScaling(0.0, 0.5, log=True)
    ours = {"x": np.array([2.0, 0.0, -1.0])}
    theirs = {"x": np.array([2.0, 0.001, -1.0])}
    # 0.001 is 0.002 std of 0.5; the answer 0 counts as 0.1 std = 0.05, so it is 0.02 of it
    assert parity.difference(ours, theirs, "x", plain) == pytest.approx({"max_relative": 0.02, "max_std": 0.002})
    # with a logarithm the std is a factor: 1 % of the answer is 0.02 std of 0.5
    found = parity.difference({"x": np.array([3.0])}, {"x": np.array([3.03])}, "x", log)
    assert found == pytest.approx({"max_relative": 0.01, "max_std": 0.02})
    assert parity.judge({"max_relative": 1e-5, "max_std": 2e-4}, "it")["within"] is False
    for bad in ({"max_relative": 2e-3, "max_std": 0.0}, {"max_relative": 0.0, "max_std": float("nan")}):
        with pytest.raises(ParityError, match="Nothing was exported"):
            parity.judge(bad, "it")
    with pytest.raises(ParityError, match="outputs are"):
        parity.difference(ours, {"y": ours["x"]}, "x", plain)


def test_formats_are_named_or_refused() -> None:
    assert parse_formats("LiteRT, savedmodel") == ("savedmodel", "litert")
    for text in ("onxx", "", "savedmodel,tflite"):
        with pytest.raises(ConfigError, match="--format takes one or several of savedmodel,onnx,litert"):
            parse_formats(text)


def test_a_missing_package_is_named_before_anything_is_trained(
    finished: Path, tiny_file, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(FORMATS, "litert", Format("LiteRT", "model.tflite", {"no_such_module": "no-such-package"}))
    assert main(["train", str(tiny_file(output={"export": True, "export_formats": ["litert"]}))]) == 2
    assert not (tmp_path / "runs").exists()
    assert main(["export", str(finished), "--format", "litert", "-o", str(tmp_path / "model")]) == 2
    shown = capsys.readouterr().err
    assert shown.count("formats litert need packages that are not installed: no-such-package. Run `pip install") == 2


@pytest.mark.slow
def test_training_writes_the_configured_formats(tiny_file, tmp_path: Path, capsys) -> None:
    path = tiny_file(training={"max_epochs": 1}, output={"export": True, "export_formats": ["onnx"]})
    assert main(["train", str(path), "--run-dir", str(tmp_path / "run"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["metrics"]["export"]
    assert list(written["parity"]["formats"]) == ["onnx"]
    assert {p.name for p in Path(written["folder"]).iterdir()} == {"model.onnx", "cloudml.json", "model_card.md"}
    assert "| **this model** |" in (Path(written["folder"]) / "model_card.md").read_text()


@pytest.mark.slow
def test_an_older_run_without_ranges_has_a_card_too(finished: Path, tmp_path: Path) -> None:
    for name in ("config.json", "best.weights.h5"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    description = json.loads((finished / "data.json").read_text())
    del description["ranges"]
    write_json(tmp_path / "data.json", description)
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "model_card.md").read_text()
    assert "The ranges of the training inputs are not recorded" in card
    assert "the run's metrics.json is missing" in card


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_what_a_format_has_no_word_for_is_refused_in_words(tiny, tmp_path: Path, name: str) -> None:
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((3,), name="frames"), keras.layers.Dense(1)])
    source = Source(model, lambda x: {"optical_depth": tf.math.bessel_i0e(model(x["frames"]))}, tiny(), {})
    assert source.shapes == {"frames": (None, 3)}
    write_savedmodel(source, tmp_path)
    with pytest.raises(RunError, match=f"cannot be written as {FORMATS[name].title} .* Leave {name} out of --format"):
        convert(tmp_path, name, tmp_path / FORMATS[name].file)
