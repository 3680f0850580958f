"""Bad input through the real command line: exit code 2, one message that says what to do, and nothing left behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flight_files import (
    AZIMUTH,
    BASE,
    DEPTH,
    FILL,
    FRAME_TIME,
    HEADING,
    NUMBER,
    SIGNAL,
    START_S,
    ZENITH,
    camera_file,
    images,
    lidar_file,
    navigation_file,
    slots,
    tiny_content,
    write_config,
    write_flight,
    write_three_flights,
)

from cloudml_tf.commands.main import main

NO_PLACE = "not-a-folder"  # a regular file: nobody can write below it, not even root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A place with flights a, b and c."""
    write_three_flights(tmp_path / "flights")
    (tmp_path / NO_PLACE).write_text("a file")
    return tmp_path


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """A function: command-line arguments -> the one message, after all checks that hold for every bad input.

    `says` is what may stand on stdout before the error is found.
    """

    def run(*arguments: Any, says: str = "") -> str:
        before = files_below(tmp_path)
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert code == 2
        assert out == says
        assert err.startswith(f"cloudml {arguments[0]}: ")
        assert err.count("\ncloudml ") == 0  # one message
        assert "Traceback" not in err
        assert files_below(tmp_path) == before  # no run folder, no leftovers
        return err

    return run


# --- flight files


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("which", "role"), [(camera_file, "camera"), (lidar_file, "lidar"), (navigation_file, "navigation")]
)
def test_a_missing_file(home: Path, refused: Refused, which: Callable[[Path], Path], role: str) -> None:
    which(home / "flights" / "a").unlink()
    message = refused("train", write_config(home))
    if role == "camera":  # then the folder is no flight at all
        assert "split.train names flight 'a'; the flights are b, c" in message
    else:
        assert f"{home / 'flights' / 'a'}: no {role} file" in message
        assert f"Set data.{role}.files" in message


@pytest.mark.parametrize("which", [camera_file, lidar_file, navigation_file])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(truncate, "is truncated; copy it again"), (lambda path: path.write_text("text"), "is not an HDF5 file")],
    ids=["truncated", "text"],
)
def test_a_spoilt_file(home: Path, refused: Refused, which: Any, spoil: Any, reason: str) -> None:
    path = which(home / "flights" / "b")
    spoil(path)
    message = refused("train", write_config(home))
    assert str(path) in message
    assert reason in message


# What is wrong with flight a, further configuration, and what the message must say beside the flight's folder.
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "wrong key": (
        {"camera": {SIGNAL: None, "Product/Signals": images()}},
        {},
        ["no dataset 'Product/Signal'", "data.camera.channels", "Nearest: 'Product/Signals'"],
    ),
    "wrong rank": (
        {"camera": {SIGNAL: images()[0]}},
        {},
        ["'Product/Signal'", "data.camera.channels", "must have 3 dimensions", "shape (8, 10)"],
    ),
    "wrong type": (
        {"lidar": {DEPTH: np.full((10, 10), b"thick")}},
        {},
        ["data.lidar.optical_depth", "must hold numbers", "Received: type |S5"],
    ),
    "wrong length": (
        {"lidar": {NUMBER: np.ones(7)}},
        {},
        ["data.lidar.number_layers", "one row per profile, 10", "shape (7,)"],
    ),
    "navigation of another length": (
        {"navigation": {HEADING: np.zeros(41)}},
        {},
        ["'nav/heading'", "one row per camera frame, 40", "Received: 41"],
    ),
    "fill only": (
        {"lidar": {DEPTH: np.full((10, 10), FILL)}},
        {},
        [
            "flight a has no label for optical_depth",
            "holds no usable value in 10 profiles with cloud",
            "Check data.lidar",
        ],
    ),
    "NaN only": ({"label": np.full(10, np.nan)}, {}, ["flight a has no label", "Check data.lidar"]),
    "infinite only": ({"label": np.full(10, np.inf)}, {}, ["flight a has no label", "Check data.lidar"]),
    "negative only": ({"label": np.full(10, -0.5)}, {}, ["flight a has no label", "Check data.lidar"]),
    "negative heights": (
        {"lidar": {BASE: slots(*[[-0.5]] * 10)}},
        {"target.name": "cloud_base_km"},
        ["flight a has no label for cloud_base_km", "holds no usable value in 10 profiles with cloud"],
    ),
    "out of range": (
        {"label": np.full(10, 9.0)},
        {},
        ["flight a has no label", "between 0.1 and 2", "10 profiles out of range", "target.maximum"],
    ),
    "sequence longer than the flight": (
        {"frame_s": START_S + np.arange(6), "profile_s": START_S + np.array([2.0, 3.0])},
        {"temporal_frames": 7},
        ["temporal_frames = 7", "longest piece without a gap has 6 frames", "Lower temporal_frames"],
    ),
    "no sun angles": (
        {"navigation": {ZENITH: np.full(40, np.nan), AZIMUTH: np.full(40, np.nan)}},
        {},
        ["40 frames without sun angles", "data.sun_angles"],
    ),
    "black": (
        {"camera": {SIGNAL: np.zeros((40, 8, 10), "uint16")}},
        {},
        ["flight a has a black, saturated or non-finite frame", "data.camera.channels"],
    ),
    "saturated": (
        {"camera": {SIGNAL: np.full((40, 8, 10), 65535, "uint16")}},
        {},
        ["flight a has a black, saturated or non-finite frame", "saturation"],
    ),
    "not finite": (
        {"camera": {SIGNAL: np.full((40, 8, 10), np.nan)}},
        {},
        ["flight a has a black, saturated or non-finite frame"],
    ),
    "another zone": (
        {"camera": {FRAME_TIME: START_S + np.arange(40) + 7 * 3600}},
        {},
        ["do not overlap in time", "-7.00 h after the camera", "data.camera.time_offset_s"],
    ),
    "another unit": (
        {"camera": {FRAME_TIME: (START_S + np.arange(40)) * 1e3}},
        {},
        ["do not overlap in time", "time_unit"],
    ),
    "slice beyond the frame": ({}, {"data.camera.rows": [40, 480]}, ["data.camera.rows [40, 480] does not fit 8 rows"]),
    "no such feature": (
        {},
        {"data.features": [{"name": "roll", "file": "navigation", "dataset": "nav/rol"}]},
        ["no dataset 'nav/rol'", "data.features 'roll'"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_one_flight(home: Path, refused: Refused, fault: str) -> None:
    changes, settings, expected = FAULTS[fault]
    write_flight(home / "flights" / "a", **changes)
    message = refused("train", write_config(home, settings))
    assert str(home / "flights" / "a") in message
    for text in expected:
        assert text in message


def test_constant_labels(home: Path, refused: Refused) -> None:
    write_flight(home / "flights" / "a", label=np.full(10, 0.7))
    message = refused("train", write_config(home))
    assert "all 10 labels of the train split are 0.7" in message
    assert "Check data.lidar" in message


def test_too_few_labels(home: Path, refused: Refused) -> None:
    write_flight(home / "flights" / "b", seed=1, label=[1.0] + [np.nan] * 9)
    assert "the val split has 1 labelled sequences; it needs 2 or more" in refused("train", write_config(home))


def test_one_file_under_two_names(home: Path, refused: Refused) -> None:
    camera_file(home / "flights" / "b").write_bytes(camera_file(home / "flights" / "a").read_bytes())
    message = refused("train", write_config(home))
    assert str(camera_file(home / "flights" / "a")) in message
    assert str(camera_file(home / "flights" / "b")) in message
    assert "leak" in message


def test_no_such_folder_of_flights(home: Path, refused: Refused) -> None:
    message = refused("train", write_config(home, {"data.path": str(home / "flihgts")}))
    assert f"{home / 'flihgts'}: no such folder of flights. Set data.path" in message


def test_a_damaged_flight_does_not_leave_a_mapped_table_behind(home: Path, refused: Refused) -> None:
    write_flight(home / "flights" / "b", seed=1, camera={SIGNAL: np.zeros((40, 8, 10), "uint16")})
    (home / "cache").mkdir()
    config = write_config(home, {"data.memory_gb": 1e-9})
    before = {path for path in files_below(home) if path.name.startswith(".")}
    assert main(["train", str(config)]) == 2
    assert {path for path in files_below(home) if path.name.startswith(".")} == before
    assert not (home / "runs").exists()


# --- splits


def test_a_split_that_names_a_missing_flight(home: Path, refused: Refused) -> None:
    (home / "flights" / "b").rename(home / "flights" / "flight_b")
    split = {"kind": "flights", "train": ["a"], "val": ["flight_d"], "test": ["c"]}
    message = refused("train", write_config(home, {"split": split}))
    assert "split.val names flight 'flight_d'; the flights are a, c, flight_b. Did you mean 'flight_b'?" in message


def test_leave_one_out_over_a_missing_flight(home: Path, refused: Refused) -> None:
    assert "--lofo names q; the flights are a, b, c" in refused("train", write_config(home), "--lofo", "a,q")


def test_bad_input_in_a_fold_leaves_no_folder(home: Path, refused: Refused) -> None:
    truncate(lidar_file(home / "flights" / "b"))
    (home / "runs" / "tiny").mkdir(parents=True)
    message = refused("train", write_config(home), "--lofo", "a,b,c", says="leave-one-flight-out: a\n")
    assert "is truncated" in message


# --- configurations


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trainng": {}}, ["unknown key 'trainng'; did you mean 'training'?"]),
        ({"training.max_epoch": 3}, ["unknown key 'training.max_epoch'; did you mean 'training.max_epochs'?"]),
        ({"data.camera.chanels": []}, ["unknown key 'data.camera.chanels'; did you mean 'data.camera.channels'?"]),
        (
            {"split": {"kind": "flights", "train": ["a"], "vall": ["b"], "test": ["c"]}},
            ["'split.val' is required and missing", "unknown key 'split.vall'; did you mean 'split.val'?"],
        ),
        ({"split": {"train": ["a"]}}, ["'split.kind' is required and missing"]),
        ({"split": {"kind": "random"}}, ["'split.kind': must be 'flights', 'leave_one_out' or 'time_blocks'"]),
        ({"training.batch_size": "many"}, ["'training.batch_size'", "valid integer", 'Received: "many"']),
        ({"training.learning_rate": -1}, ["'training.learning_rate'", "greater than 0", "Received: -1"]),
        ({"temporal_frames": 4}, ["'temporal_frames'", "1, 3, 5, 7", "Received: 4"]),
        ({"model.widths": [4, 0]}, ["'model.widths'", "1 or more"]),
        ({"model.output_init": "small"}, ["'model.output_init'", "'default'", "valid number", 'Received: "small"']),
        ({"data.features": [{"name": "x", "file": "radar", "dataset": "y"}]}, ["'data.features.0.file'", "'camera'"]),
        ({"target": 3}, ["'target'", "Received: 3"]),
        ({"target.minimum": 3.0}, ["'target'", "minimum 3.0 must be below maximum 2.0"]),
        ({"target.transform": "log", "target.minimum": None}, ["'target'", "log target needs minimum above 0"]),
        ({"target.smearing": True}, ["'target'", "smearing belongs to the log transform"]),
        ({"data.flights": {}}, ["'data'", "path and flights both name the input; keep one"]),
        (
            {"split": {"kind": "flights", "train": ["a", "b"], "val": ["b"], "test": ["c"]}},
            ["'split'", "a flight can be in one split only; named twice: b"],
        ),
        ({"data.lidar.clear_sky": "zero"}, ["data.lidar.clear_sky 'zero'", "set target.minimum to 0 or null"]),
        (
            {"data.lidar.layer": "column", "target.name": "cloud_base_km"},
            ["data.lidar.layer 'column' is a sum, and cloud_base_km does not add up"],
        ),
        (
            {"loss.target_variance": "batch", "training.batch_size": 1},
            ["loss.target_variance 'batch' needs training.batch_size of 2 or more"],
        ),
        ({"experiment_name": "../away"}, ["'experiment_name'", "pattern"]),
        ({"data.path": "${CLOUDML_TEST_NOWHERE}/x"}, ["environment variable CLOUDML_TEST_NOWHERE. Set it"]),
    ],
)
def test_a_configuration_that_breaks_a_rule(
    home: Path, refused: Refused, changes: dict[str, Any], expected: list[str]
) -> None:
    path = write_config(home, changes)
    message = refused("train", path)
    for text in expected:
        assert text in message
    if "environment" not in message:
        assert str(path) in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"seed" 1}', "not valid JSON at line 1, column 9"),
        ("", "not valid JSON at line 1, column 1"),
        ("[1, 2]", "a configuration is a JSON object {...}. Received: list"),
        ('{"target": {"minimum": NaN}}', "NaN is not a number that JSON knows; give a finite number"),
        ('{"target": {"maximum": Infinity}}', "Infinity is not a number that JSON knows"),
        (b"\xff\xfe\x00", "cannot be read as a text file"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, refused: Refused, text: str | bytes, expected: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused("train", path)
    assert str(path) in message
    assert expected in message


def test_a_missing_configuration_is_told_with_the_nearest_name(home: Path, refused: Refused) -> None:
    path = write_config(home)
    message = refused("train", home / "tinny.json")
    assert f"{home / 'tinny.json'}: no such configuration file. Did you mean {path}?" in message
    elsewhere = home.with_name(home.name + "s") / path.name
    assert f"{elsewhere}: no such configuration file. Did you mean {path}?" in refused("train", elsewhere)
    assert refused("train", home / "other" / "zzz.json").endswith(
        "no such configuration file. The command `init` writes one.\n"
    )


@pytest.mark.parametrize("place", [".", NO_PLACE + "/tiny.json"])
def test_a_configuration_that_is_no_file(home: Path, refused: Refused, place: str) -> None:
    said = "is a folder; give a configuration" if place == "." else "cannot be read as a text file"
    assert said in refused("train", home / place)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.max_epochs", "--set needs key=value"),
        ("=5", "--set needs key=value"),
        ("training.max_epochs=soon", 'train: --set training.max_epochs: must be a valid integer. Received: "soon"'),
        ("split.kind=random", "train: --set split.kind: must be 'flights', 'leave_one_out' or 'time_blocks'. Rec"),
        ("target.maximum=None", "must be a valid number, or null for no limit. Received"),
        ("data.camera.rows=1", "must be a list, [...], or null. Received: 1"),
        ("target.minimum=3", "train: --set target.minimum: 'target': minimum 3.0 must be below maximum 2.0"),
        ("model.head=quantile", "train: --set model.head: model.head 'quantile' and loss.base 'mse' do not fit"),
        ("trainin.max_epochs=5", "train: --set trainin.max_epochs: unknown key 'trainin'; did you mean 'training'?"),
        ("seed.low=5", "'seed.low"),
        ("target.minimum=NaN", "NaN is not a number that JSON knows"),
    ],
)
def test_a_bad_override(home: Path, refused: Refused, override: str, expected: str) -> None:
    content = tiny_content(home) | {"seed": 1}
    path = home / "tiny.json"
    path.write_text(json.dumps(content))
    message = refused("train", path, "--set", override)
    if override.startswith("seed"):
        assert "--set seed.low: 'seed' is a value, not a section" in message
    else:
        assert expected in message


def test_a_bad_command_line_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "CONFIG" in capsys.readouterr().err


def test_lofo_is_resumed_in_its_own_folder(home: Path, refused: Refused) -> None:
    assert "--lofo --resume needs --run-dir" in refused("train", write_config(home), "--lofo", "--resume")


# --- places to write and to read


@pytest.mark.parametrize("how", ["--run-dir", "output.runs"])
def test_a_run_folder_that_cannot_be_written(home: Path, refused: Refused, how: str) -> None:
    place = home / NO_PLACE / "runs"
    if how == "--run-dir":
        message = refused("train", write_config(home), "--run-dir", place)
    else:
        message = refused("train", write_config(home, {"output.runs": str(place)}))
    assert f"{place}" in message
    assert "the run folder cannot be written (Not a directory). Set --run-dir or output.runs" in message


def test_a_run_folder_that_is_in_use(home: Path, refused: Refused) -> None:
    message = refused("train", write_config(home), "--run-dir", home / "flights")
    assert f"{home / 'flights'}: exists and is not empty. Choose another --run-dir" in message


def test_a_cache_that_cannot_be_written(home: Path, refused: Refused) -> None:
    changes = {"data.memory_gb": 1e-9, "data.cache": str(home / NO_PLACE / "cache")}
    message = refused("train", write_config(home, changes))
    assert str(home / NO_PLACE / "cache") in message
    assert "data.cache needs a folder that can be written" in message


def test_simulating_into_a_place_that_cannot_be_written(home: Path, refused: Refused) -> None:
    message = refused("simulate", home / NO_PLACE / "flights", "--flights", 1)
    assert f"{home / NO_PLACE / 'flights'}: the folder cannot be made (Not a directory); choose another." in message
    assert ".lock" not in message


def test_a_folder_with_a_configuration_is_told_with_it(home: Path, refused: Refused) -> None:
    camp = home / "camp"
    camp.mkdir()
    write_config(home).rename(camp / "config.json")
    (camp / "schema.json").write_text("{}")
    assert (
        f"{camp}: is a folder; give a configuration, which is a JSON file. Did you mean {camp}/config.json?"
        in refused("train", camp)
    )
    message = refused("predict", camp, "x")
    assert f"nothing was trained here. `cloudml train {camp / 'config.json'}` trains a run; name its folder." in message
    run = home / "runs" / "tiny" / "20260101-120000"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}")
    assert f"nothing was trained here. Name one of its runs: {run}.\n" in refused("predict", camp, "x")


def test_an_export_is_no_run_and_a_file_is_no_model(home: Path, refused: Refused) -> None:
    model = home / "savedmodels" / "camp"
    model.mkdir(parents=True)
    (model / "saved_model.pb").touch()
    (model / "cloudml.json").write_text('{"run": "camp/20260101-120000"}')
    needs = f"{model}: is an exported model, and this command needs the folder of its run, camp/20260101-120000."
    assert needs in refused("diagnose", model)
    assert needs in refused("export", model)
    message = refused("predict", model / "saved_model.pb", "x")
    assert f"saved_model.pb: is a file. Give the folder of a run or a model, {model}." in message


def test_scenes_without_lidar_name_the_option_first(home: Path, refused: Refused) -> None:
    for name in "abc":
        lidar_file(home / "flights" / name).unlink()
    message = refused("scenes", home / "flights", "-o", home / "x.h5")
    assert message.startswith("cloudml scenes: --no-lidar writes scenes of these flights without labels, for predict")
    assert "no lidar file" in message


def test_nothing_to_resume(home: Path, refused: Refused) -> None:
    config = write_config(home)
    assert f"{home / 'runs' / 'tiny'}: no interrupted run to resume" in refused("train", config, "--resume")
    message = refused("train", config, "--resume", "--run-dir", home / "flights")
    assert f"{home / 'flights'}: no checkpoint.npz to resume from" in message


def test_evaluating_what_is_neither_run_nor_export(home: Path, refused: Refused) -> None:
    message = refused("evaluate", home / "flights", "--flights", home / "flights")
    assert f"{home / 'flights'}: neither a run folder (config.json) nor an exported model (cloudml.json)" in message


@pytest.mark.parametrize("command", [["evaluate", "--flights", "x"], ["predict", "x"], ["diagnose"], ["export"]])
@pytest.mark.parametrize(
    ("place", "hint"), [("nowhere", ""), (NO_PLACE + "/x", ""), ("run/last", " Did you mean {home}/runs/last?")]
)
def test_a_run_folder_that_does_not_exist(
    home: Path, refused: Refused, command: list[str], place: str, hint: str
) -> None:
    (home / "runs" / "last").mkdir(parents=True)
    message = refused(command[0], home / place, *command[1:])
    assert message.endswith(f"{home / place}: no such folder.{hint.format(home=home)}\n")


def test_a_folder_of_runs_is_told_with_its_runs(home: Path, refused: Refused) -> None:
    folders = [home / "runs" / f"{number}" for number in range(1, 8)]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / "config.json").touch()
    assert f"Name one inside it: {folders[0]}.\n" in refused("diagnose", home / "runs")
    for folder in folders[1:]:
        (folder / "cloudml.json").touch()
    assert f"{folders[-1]} (the last 5 of 7)." in refused("diagnose", home / "runs")


def test_evaluating_an_export_without_its_description(home: Path, refused: Refused) -> None:
    (home / "exported").mkdir()
    (home / "exported" / "saved_model.pb").touch()
    message = refused("evaluate", home / "exported", "--flights", home / "flights")
    assert f"{home / 'exported' / 'cloudml.json'}: cannot be read" in message


def test_exporting_what_is_no_run(home: Path, refused: Refused) -> None:
    assert f"{home / 'flights'}: neither a run folder" in refused("export", home / "flights")


def test_a_run_whose_data_json_is_damaged(home: Path, refused: Refused) -> None:
    run = home / "run"
    run.mkdir()
    write_config(home).rename(run / "config.json")
    (run / "data.json").write_text('{"fingerprint": ')
    assert f"{run / 'data.json'}: is not valid JSON" in refused("export", run)


# --- machines and whole processes


def test_with_json_the_error_is_json_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncate(camera_file(home / "flights" / "a"))
    assert main(["train", str(write_config(home)), "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["exit_code"] == 2
    assert "is truncated" in found["error"]
    assert err == f"cloudml train: {found['error']}\n"


@pytest.mark.parametrize("module", [["cloudml_tf", "train"], ["cloudml_tf.train"]])
def test_a_process_ends_with_code_2_and_one_line(home: Path, module: list[str]) -> None:
    truncate(navigation_file(home / "flights" / "c"))
    config = write_config(home)
    before = files_below(home)
    command = [sys.executable, "-W", "error", "-m", *module, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"{navigation_file(home / 'flights' / 'c')}: is truncated; copy it again" in done.stderr
    assert files_below(home) == before
