"""Loading a run, a configuration, weights or an export runs nothing of it, and nothing secret is written."""

import io
import json
import os
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import WHOLE
from flight_files import tiny_content

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config
from cloudml_tf.config.run_folder import RECORD, environment, read_json
from cloudml_tf.data.readers.arrays import check_weights, read_npz
from cloudml_tf.inference.export import trust
from cloudml_tf.inference.export.formats import FORMATS, open_export
from cloudml_tf.train import checkpoint
from cloudml_tf.utils import redaction
from cloudml_tf.utils.errors import ConfigError, RunError

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "savedmodels" / "example"


class Touch:
    """Unpickled, it writes a file: what a hostile file would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


# --- arrays


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "checkpoint.npz"
    np.savez(path, _json=np.array([Touch(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(RunError, match="Python objects, which are not loaded"):
        read_npz(path)
    with pytest.raises(RunError, match="is damaged"):
        checkpoint.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", pickle.dumps(Touch(marker)))
    with pytest.raises(RunError, match="is damaged"):
        read_npz(path)
    path.write_bytes(pickle.dumps(Touch(marker)))
    with pytest.raises(RunError, match="is damaged"):
        read_npz(path)
    assert not marker.exists()


def npz(path: Path, shape: tuple[int, ...], held: int, name: str = "a.npy") -> None:
    """An array that declares a shape, and holds so many zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_2_0(head, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, head.getvalue() + bytes(8 * held))


def test_an_array_that_declares_more_than_it_holds_is_refused_before_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    npz(path, (10**13,), 4)
    with pytest.raises(RunError, match=r"declares the shape \(10000000000000,\), but holds \d+ bytes"):
        read_npz(path)
    npz(path, (4,), 4, name="../../outside.npy")  # nothing is ever unpacked onto the disk
    assert list(read_npz(path)) == ["../../outside"]
    assert not (tmp_path.parent.parent / "outside.npy").exists()


def test_plain_arrays_come_back(tmp_path: Path) -> None:
    content = {"model": [np.arange(3.0), np.eye(2)], "epoch": 3, "states": {"a": {"best": 0.5}}}
    checkpoint.save(tmp_path / "c.npz", content)
    found = checkpoint.load(tmp_path / "c.npz")
    assert np.array_equal(found["model"][1], np.eye(2))
    assert found["states"] == content["states"]


def weights(path: Path, write: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((3, 2), "float32")
        write(file)
    return path


HOSTILE_WEIGHTS: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "external link": (lambda f: f.__setitem__("layers/x", h5py.ExternalLink("/etc/passwd", "/")), "is a link"),
    "soft link": (lambda f: f.__setitem__("layers/x", h5py.SoftLink("/layers")), "is a link"),
    "external storage": (
        lambda f: f.create_dataset("layers/x", (8,), "u1", external=[("/etc/hostname", 0, 8)]),
        "lies in another file",
    ),
    "huge": (lambda f: f.create_dataset("layers/x", (10**6, 10**6), "f4"), "declares .* MB, but the file holds 0 MB"),
    "many": (
        lambda f: [f.create_dataset(f"layers/{n}", (1500, 1500), "f4") for n in range(9)],
        "declares 81000024 bytes of weights, but does not hold them",
    ),
}


@pytest.mark.parametrize("case", HOSTILE_WEIGHTS)
def test_hostile_weights(tmp_path: Path, case: str) -> None:
    write, text = HOSTILE_WEIGHTS[case]
    with pytest.raises(RunError, match=text):
        check_weights(weights(tmp_path / "best.weights.h5", write))


def test_good_weights_and_groups_that_hold_themselves(tmp_path: Path) -> None:
    check_weights(weights(tmp_path / "best.weights.h5", lambda file: file.__setitem__("itself", file["/"])))
    (tmp_path / "best.weights.h5").write_text("no weights")
    with pytest.raises(RunError, match="does not fit the run's configuration or is damaged"):
        check_weights(tmp_path / "best.weights.h5")


@pytest.mark.tensorflow("a Lambda layer's code is run by Keras on every backend; one is enough")
def test_a_model_file_with_code_in_the_place_of_weights_runs_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A .keras archive and a whole-model .h5, both with a Lambda layer, under the name of the weights."""
    import keras

    marker = tmp_path / "ran"
    layer = keras.layers.Lambda(
        eval(f"lambda x: (__import__('os').makedirs({str(marker)!r}, exist_ok=True), x)[1]"), output_shape=(3,)
    )
    model = keras.Sequential([keras.Input((3,)), layer])
    if marker.exists():
        marker.rmdir()  # building it ran it
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    model.save(tmp_path / "hostile.keras")
    shutil.copy(tmp_path / "hostile.keras", run / "best.weights.h5")
    flight = json.loads((finished / "data.json").read_text())["files"]["sim03"]["camera"]
    command = ["predict", str(run), str(Path(flight).parent), "-o", str(tmp_path / "out.nc")]
    assert main(command) == 2
    config = json.dumps({"class_name": "Sequential", "config": model.get_config()}, default=str)
    with h5py.File(run / "best.weights.h5", "w") as file:
        file.attrs["model_config"] = config
        file.create_group("model_weights")
    assert main(command) == 2
    assert "does not fit the run's configuration or is damaged" in capsys.readouterr().err
    assert not marker.exists()


# --- exports


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The shipped export, to be spoilt."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


def test_a_changed_file_of_an_export_is_refused(example: Path) -> None:
    record = read_json(example / RECORD)
    names = {name: [example / form.file] for name, form in FORMATS.items()}
    names["savedmodel"] += sorted((example / "variables").glob("*"))
    record[trust.SHA256] = trust.digests([path for paths in names.values() for path in paths], example)
    (example / RECORD).write_text(json.dumps(record))
    for name, paths in names.items():
        open_export(example, name)
        for path in paths:
            good = path.read_bytes()
            path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
            with pytest.raises(RunError, match=f"{path.name}: is not the file that was exported"):
                open_export(example, name)
            path.write_bytes(good)
    (example / "variables" / "variables.index").unlink()
    with pytest.raises(RunError, match=r"is not the file that was exported .* here missing"):
        open_export(example, "savedmodel")


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_export_is_told_in_one_line(example: Path, name: str) -> None:
    (example / FORMATS[name].file).write_bytes(b"\x08\x01 no model")
    with pytest.raises(RunError, match=f"{FORMATS[name].file}: ") as caught:
        open_export(example, name)
    assert "\n" not in str(caught.value)


def hostile(path: Path, change: Callable[[Any], None]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())


def add_node(operation: str, **function: str) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        serve = next(f for f in graph.graph_def.library.function if f.signature.name.startswith("__inference_serve"))
        node = serve.node_def.add(name="hostile", op=operation)
        for key, name in function.items():
            node.attr[key].func.name = name

    return change


def call_the_saver(graph: Any) -> None:
    saver = next(f.signature.name for f in graph.graph_def.library.function if "traced_save" in f.signature.name)
    add_node("PartitionedCall", f=saver)(graph)


def saver_as_function(graph: Any) -> None:
    saver = next(f.signature.name for f in graph.graph_def.library.function if "traced_save" in f.signature.name)
    graph.object_graph_def.concrete_functions[saver].bound_inputs.append(1)


HOSTILE_GRAPHS = {
    **{op: add_node(op) for op in ("ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "DebugIdentityV3", "PrintV2")},
    **{op: add_node(op) for op in ("SaveV2", "RestoreV2", "XlaCustomCallV2", "MyOwnOperation", "RemoteCall")},
    "outer graph": lambda graph: graph.graph_def.node.add(name="hostile", op="WriteFile"),
    "asset": lambda graph: graph.asset_file_def.add(filename="../../outside"),
    "own saver": call_the_saver,
    "saver as function": saver_as_function,
}


@pytest.mark.tensorflow("SavedModels are TensorFlow's")
@pytest.mark.parametrize("case", HOSTILE_GRAPHS)
def test_a_savedmodel_that_does_more_than_compute_is_not_loaded(example: Path, case: str) -> None:
    hostile(example / "saved_model.pb", HOSTILE_GRAPHS[case])
    with pytest.raises(
        RunError, match=r"saved_model\.pb: (holds the operation|contains a further file|calls its own|its saver)"
    ):
        open_export(example, "savedmodel")


@pytest.mark.tensorflow("SavedModels are TensorFlow's")
def test_a_real_hostile_savedmodel_writes_nothing(tmp_path: Path) -> None:
    """One that writes a file when it is loaded or asked: TensorFlow would do it, and this does not."""
    import tensorflow as tf

    class Hostile(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32, name="frames")])
        def serve(self, frames: Any) -> dict[str, Any]:
            tf.io.write_file(str(tmp_path / "written"), "x")
            return {"optical_depth": tf.reduce_sum(frames, axis=1)}

    module = Hostile()
    tf.saved_model.save(module, str(tmp_path / "export"), signatures={"serving_default": module.serve})
    with pytest.raises(RunError, match="holds the operation WriteFile"):
        open_export(tmp_path / "export", "savedmodel")
    assert not (tmp_path / "written").exists()


def test_an_onnx_file_that_reads_other_files_is_not_loaded(example: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = example / "model.onnx"
    good = onnx.load(str(path))
    tensor = good.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    path.write_bytes(good.SerializeToString())
    with pytest.raises(RunError, match="has its weights in other files"):
        open_export(example, "onnx")
    good = onnx.load(str(EXAMPLE / "model.onnx"))
    good.graph.node[0].domain = "somebody.else"
    path.write_bytes(good.SerializeToString())
    with pytest.raises(RunError, match=r"needs the operation somebody\.else\."):
        open_export(example, "onnx")


# --- configurations and JSON of a run folder


JSONS = {
    "deep": ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper than 64 levels"),
    "deep, within Python's limit": ("[" * 100 + "]" * 100, "nested deeper than 64 levels"),
    "digits": ('{"seed": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    "large": ('{"seed": 1e999}', "1e999 is too large"),
    "NaN": ('{"seed": NaN}', "NaN is not a number that JSON knows"),
    "twice": ('{"seed": 1, "seed": 2}', "the key 'seed' appears twice"),
    "surrogate": ('{"experiment_name": "\\ud800"}', "holds text that is not Unicode"),
    "surrogate key": ('{"\\ud800": 1}', "holds text that is not Unicode"),
}


@pytest.mark.parametrize("case", JSONS)
def test_json_that_is_not_plain(tmp_path: Path, case: str) -> None:
    text, message = JSONS[case]
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert len(str(caught.value)) < 400
    with pytest.raises(RunError, match=message):
        read_json(path)


def test_places_that_are_no_configuration_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for place in (tmp_path, tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=r"is a folder; give|a folder, a device or a pipe"):
            load_config(place)
    (tmp_path / "bytes.json").write_bytes(b'{"seed": "\xff"}')
    with pytest.raises(ConfigError, match="cannot be read as a text file"):
        load_config(tmp_path / "bytes.json")


def test_a_configuration_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(2**30)
    began = time.monotonic()
    with pytest.raises(ConfigError, match="is larger than 16 MB"):
        load_config(tmp_path / "large.json")
    assert time.monotonic() - began < 3


@pytest.mark.no_cover
def test_a_thousand_mistakes_are_told_shortly(tmp_path: Path) -> None:
    content = {**tiny_content(tmp_path), **{f"nonsense_{number}_{'x' * 100}": number for number in range(1000)}}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="and 980 more") as caught:
        load_config(tmp_path / "x.json")
    assert len(str(caught.value)) < 20_000


# --- secrets


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Secrets in the environment, as a laboratory's machine has them."""
    found = {
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz",
        "DB_PASSWORD": "correct-horse-battery",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def holding(folder: Path, secrets: dict[str, str]) -> list[Path]:
    """Files below a folder, of any kind, in which a secret stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(value.encode() in path.read_bytes() for value in secrets.values())]


def test_the_command_of_a_run_is_written_without_secrets(
    planted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "cloudml", "train", "x.json", f"--set=tracking.api_key={planted['WANDB_API_KEY']}", "--token", "short",
        "--set", "password=hunter2", "--set", "data.path=https://me:hidden@host/x", planted["HF_TOKEN"], "seed=3",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", words)
    command = environment()["command"]
    assert not any(secret in command for secret in [*planted.values(), "short", "hunter2", "hidden"])
    assert command.count(redaction.HIDDEN) == 5
    assert "seed=3" in command
    assert "x.json" in command


def test_a_configuration_that_holds_a_secret_is_refused(
    planted: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(tiny_content(tmp_path)))
    for field in ("tracking.project", "data.path"):
        word = f"{field}=x-{planted['WANDB_API_KEY']}"
        assert main(["train", str(tmp_path / "tiny.json"), "--set", word, "--run-dir", str(tmp_path / "run")]) == 2
        told = capsys.readouterr().err
        assert "holds the value of the environment variable WANDB_API_KEY" in told
        assert planted["WANDB_API_KEY"] not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_whole_run_writes_no_secret(planted: dict[str, str], tiny_file: Any, tmp_path: Path, capfd: Any) -> None:
    """With wandb offline, TensorBoard, report, prediction and export; every byte of every file is looked at."""
    config = tiny_file(**WHOLE, tracking={"wandb": "offline", "tensorboard": True}, training={"max_epochs": 2})
    assert main(["train", str(config), "--run-dir", str(tmp_path / "run")]) == 0
    flight = json.loads((tmp_path / "run" / "data.json").read_text())["files"]["sim03"]["camera"]
    assert main(["predict", str(tmp_path / "run"), str(Path(flight).parent), "-o", str(tmp_path / "out.nc")]) == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert holding(tmp_path, planted) == []
    said = "".join(capfd.readouterr())
    assert not any(value in said for value in planted.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.camera.files": ["/etc/*"]}, "stays in the flight's folder"),
        ({"data.lidar.files": ["../*.h5"]}, "stays in the flight's folder"),
        ({"data.navigation.files": ["**/*.h5"]}, "stays in the flight's folder"),
        ({"model.widths": [10**9]}, "every width must be 1 or more, and 4096 at most"),
        ({"data.path": None, "data.simulation": {"strip_width_m": 1e9}}, "cloud strip would have .* cells"),
        ({"data.path": None, "data.simulation": {"grid_m": 1e-6}}, "cloud strip would have .* cells"),
    ],
)
def test_settings_that_ask_for_too_much(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(tiny_content(tmp_path, changes)))
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "x.json")


def test_a_path_that_is_none(tmp_path: Path) -> None:
    from cloudml_tf.config.load import expand

    for text in ("a" * 5000, "a\x00b"):
        with pytest.raises(ConfigError, match="is not a path: it is too long, or holds a null character"):
            expand(text)
    assert expand("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
