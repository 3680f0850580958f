"""`cloudml predict`: the numbers of the training and of evaluate, where files go, what is told and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from conftest import TINY, merged
from flight_files import SIGNAL, camera_file, navigation_file, tiny_config
from predictions import faults, raised

from cloudml_tf.commands.evaluate import evaluate
from cloudml_tf.commands.main import main
from cloudml_tf.commands.predict import places
from cloudml_tf.inference.flags import FLAGS
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError

# --- where files go


def test_one_file_is_for_one_flight(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    assert places(["a"], str(tmp_path / "x.nc"), None, config) == [tmp_path / "x.nc"]
    assert places(["a", "b"], str(tmp_path / "x"), None, config) == [tmp_path / "x" / "a.nc", tmp_path / "x" / "b.nc"]
    (tmp_path / "folder.nc").mkdir()
    assert places(["a"], str(tmp_path / "folder.nc"), None, config) == [tmp_path / "folder.nc" / "a.nc"]
    assert places(["a"], None, str(tmp_path / "own"), config) == [tmp_path / "own" / "a.nc"]
    assert places(["a"], None, None, config)[0].parent.name.startswith("prediction-")
    with pytest.raises(ConfigError, match=r"x\.nc: is one file, and there are 2 flights: a, b\. Give a folder"):
        places(["a", "b"], str(tmp_path / "x.nc"), None, config)
    with pytest.raises(ConfigError, match="-o and --run-dir both name the destination"):
        places(["a"], "x", "y", config)


# --- whole commands


def campaign(run: Path) -> Path:
    """The folder of the simulated flights that a run was trained on."""
    files = json.loads((run / "data.json").read_text())["files"]
    return Path(files["sim03"]["camera"]).parent.parent


@pytest.fixture(scope="module")
def bare(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test flight as a later campaign has it: camera and navigation only."""
    folder = tmp_path_factory.mktemp("bare") / "sim03"
    folder.mkdir()
    for path in (campaign(finished) / "sim03").iterdir():
        if path.name.startswith(("SIM", "NAV")):
            shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.no_cover
def test_the_numbers_are_those_of_evaluate_and_of_the_training(
    finished: Path, bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], exported: bool
) -> None:
    source = finished.parent / "savedmodels" / "tiny" if exported else finished
    assert main(["predict", str(source), str(bare), "-o", str(tmp_path / "out.nc"), "--json"]) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as found:
        time_s, depth, flags = found.time.values, found.cloud_optical_depth.values, found.quality_flag.values
        usable = found.cloud_optical_depth.where(found.quality_flag & found.quality_flag.bits_without_value == 0)
        np.testing.assert_array_equal(usable, found.cloud_optical_depth)  # cautions take no value away
        attributes = found.attrs
    test = json.loads((finished / "metrics.json").read_text())
    assert attributes["model_tier"] == test["tier"]["name"] == "none"
    assert attributes["model_test_flights"] == "sim03"
    assert attributes["model_test_scores"].startswith(f"R² {test['test']['r2']:.3f}, s ")
    assert attributes["clear_sky_in_training"] == "no: over clear sky a value means nothing"
    assert "model: tier none; test (sim03): R² " in shown.err
    assert "warning: the model reached no tier on its test flights, sim03: R² " in shown.err
    assert "out: most frames are outside the training range: zenith" in shown.err.replace("sim03:", "out:")
    judged = evaluate(source, [str(campaign(finished) / "sim03")], {"evaluation.baselines": False}, Console(quiet=True))
    there = np.searchsorted(time_s, judged.examples.time_s)
    np.testing.assert_array_equal(time_s[there], judged.examples.time_s)
    np.testing.assert_allclose(depth[there], judged.scaling.physical(judged.predictions), atol=1e-5)
    np.testing.assert_allclose(depth[there], np.load(finished / "predictions.npz")["test_prediction"], atol=1e-5)
    assert told["frames"] == len(time_s)
    assert told["predicted"] == np.isfinite(depth).sum() > len(there)
    assert told["flags"] == {name: len(raised(flags, name)) for name in FLAGS}
    assert told["flags"]["sun_outside_training"] == len(time_s)  # the training flight's sun stood 7 degrees lower
    assert Path(told["files"][0]["picture"]) == tmp_path / "out.png"
    assert (tmp_path / "out.png").is_file()
    assert faults(tmp_path / "out.nc") == []


def test_several_flights_go_into_a_folder(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flights = campaign(finished)
    options = ["--set", "output.report=false"]
    arguments = ["predict", str(finished), str(flights / "sim02"), str(flights / "sim03"), *options]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sim02.nc", "sim03.nc"]
    assert "sim02.nc: " in capsys.readouterr().out
    assert main([*arguments, "-o", str(tmp_path / "out.nc")]) == 2
    assert "is one file, and there are 2 flights" in capsys.readouterr().err
    assert not (tmp_path / "out.nc").exists()


def test_an_older_run_says_that_it_cannot_compare(finished: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("config.json", "data.json", "best.weights.h5"):
        shutil.copy(finished / name, tmp_path)
    description = json.loads((tmp_path / "data.json").read_text())
    del description["ranges"]
    (tmp_path / "data.json").write_text(json.dumps(description))
    assert main(["predict", str(tmp_path), str(bare), "-o", str(tmp_path / "out.nc"), "--json"]) == 0
    shown = capsys.readouterr()
    assert "was trained before training ranges were kept" in shown.err
    flags = json.loads(shown.out)["flags"]
    assert sum(count for name, count in flags.items() if "outside" in name) == 0


def test_what_does_not_fit_is_refused(finished: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = ["predict", str(finished), str(bare), "-o", str(tmp_path / "out.nc")]
    assert main([*arguments, "--set", "data.camera.rows=[0, 8]"]) == 2
    assert "was trained on frames of shape (12, 12, 1)" in capsys.readouterr().err
    assert main([*arguments, "--set", "preprocessing.log_offset=0.1"]) == 2
    assert "cannot be changed after training" in capsys.readouterr().err
    assert main(["predict", str(tmp_path), str(bare)]) == 2
    assert "neither a run folder" in capsys.readouterr().err
    assert main(["predict", str(finished), str(tmp_path / "none")]) == 2
    assert "is no folder with flights, and no flight that the model knows by name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_destination_is_tried_before_a_prediction(finished: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").touch()
    assert main(["predict", str(finished), str(bare), "-o", str(tmp_path / "file" / "out.nc")]) == 2
    said = f"{tmp_path}/file/out.nc: cannot be written, since {tmp_path}/file is a file. Choose another place."
    assert said in capsys.readouterr().err


def test_the_name_of_a_flight_of_the_training_is_enough(finished: Path, tmp_path: Path) -> None:
    assert main(["predict", str(finished), "sim03", "-o", str(tmp_path / "out.nc")]) == 0
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found:
        assert int(found.valid.sum()) > 0
        assert found.attrs["run_id"] == f"tiny/{finished.name}"


def test_a_flight_that_nothing_fits_is_written_and_told(
    finished: Path, bare: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = Path(shutil.copytree(bare, tmp_path / "night"))
    with h5py.File(camera_file(folder), "r+") as file:
        file[SIGNAL][:] = 0
    with h5py.File(navigation_file(folder), "r+") as file:
        file.move("nav/latitude", "nav/lat")
        file["nav/solarZenith"][:] = 85.0
    assert main(["predict", str(finished), str(folder), "-o", str(tmp_path / "out.nc")]) == 0
    shown = capsys.readouterr().out
    assert "night: no frame has a complete sequence around it" in shown
    assert "night: no positions: the file will have no latitude and longitude, as " in shown
    assert "has no dataset 'nav/latitude' (perhaps 'nav/lat'); set data.navigation.latitude and longitude" in shown
    assert "'nav/lat'" in shown
    assert "night: most frames are outside the training range: zenith 85°, training has " in shown
    assert "mean radiance" not in shown  # a black frame has no radiance to compare


@pytest.mark.slow
def test_an_ensemble_brings_its_interval(finished: Path, bare: Path, tmp_path: Path) -> None:
    """The same run twice: no spread, and the width that its validation flight asks for."""
    shutil.copytree(finished, tmp_path / "two")
    options = ["--scale", "constant", "--level", "0.8", "--set", "output.report=false"]
    places = ["--set", f"output.savedmodels={tmp_path / 'saved'}", "--run-dir", str(tmp_path / "ensemble")]
    assert main(["ensemble", str(finished), str(tmp_path / "two"), *options, *places]) == 0
    assert main(["predict", str(tmp_path / "saved" / "tiny_ensemble"), str(bare), "-o", str(tmp_path / "out.nc")]) == 0
    arrays = np.load(tmp_path / "ensemble" / "predictions.npz")
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf", decode_times=False) as found:
        there = np.searchsorted(found.time.values, arrays["test_time_s"])
        for key in ("lower", "upper", "spread"):
            values = found[f"cloud_optical_depth_{key}"].values[there]
            np.testing.assert_allclose(values, arrays[f"test_{key}"], atol=1e-4)
        assert "80 %" in found.cloud_optical_depth_lower.long_name
        assert found.cloud_optical_depth_lower.comment == "interval of the ensemble, calibrated on sim02"
    assert faults(tmp_path / "out.nc") == []


@pytest.mark.parametrize(("head", "target"), [("quantile", {}), ("histogram", {"transform": "log", "smearing": True})])
@pytest.mark.slow
def test_a_head_with_a_distribution_brings_an_interval(
    cache: Path, bare: Path, tmp_path: Path, head: str, target: dict[str, Any]
) -> None:
    changes = {
        "data": {"cache": str(cache)},
        "output": {"runs": str(tmp_path), "savedmodels": str(tmp_path)},
        "training": {"max_epochs": 1},
        "model": {"head": head},
        "loss": {"base": {"quantile": "pinball", "histogram": "cross_entropy"}[head]},
        "target": target,
    }
    (tmp_path / "tiny.json").write_text(json.dumps(merged(TINY, changes)))
    assert main(["train", str(tmp_path / "tiny.json"), "--run-dir", str(tmp_path / "run")]) == 0
    width = {}
    for level in (0.5, 0.8):
        path = tmp_path / f"{level}.nc"
        options = ["--set", f"prediction.level={level}", "-o", str(path)]
        assert main(["predict", str(tmp_path / "run"), str(bare), *options]) == 0
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as found:
            low, value, high = (found[f"cloud_optical_depth{key}"].values for key in ("_lower", "", "_upper"))
            valid = found.valid.values == 1
            assert f"of the {head} head" in found.cloud_optical_depth_lower.comment
            there = np.searchsorted(found.time.values, np.load(tmp_path / "run" / "predictions.npz")["test_time_s"])
        assert (low[valid] < high[valid]).all()
        width[level] = (high - low)[valid].mean()
        expected = np.load(tmp_path / "run" / "predictions.npz")["test_prediction"]
        np.testing.assert_allclose(value[there], expected, atol=1e-5)
    assert width[0.5] < width[0.8]
