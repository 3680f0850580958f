"""`cloudml calibrate`: level and scale of a new flight from a few labels; what they change, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from flight_files import AZIMUTH, HEADING, SIGNAL, ZENITH, camera_file, lidar_file, navigation_file
from test_predict import campaign

from cloudml_tf.commands.calibrate import _choose, _trained_on, calibrate, write
from cloudml_tf.commands.evaluate import evaluate
from cloudml_tf.commands.main import main
from cloudml_tf.config.run_folder import read_model
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation.level_scale import (
    LEAST_SCALE,
    LevelScale,
    chosen_labels,
    fit_level_scale,
    share_recovered,
    straight_line,
)  # fmt: skip
from cloudml_tf.inference.model import moved, open_record
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError, RunError

QUIET = Console(quiet=True)

# --- two numbers


def planted(count: int, noise: float = 0.05, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and predictions whose level and scale are wrong: target = 0.4 + 1.5 prediction."""
    rng = np.random.default_rng(seed)
    prediction = rng.normal(size=count)
    return 0.4 + 1.5 * prediction + noise * rng.normal(size=count), prediction


def test_many_independent_labels_give_the_straight_line_and_few_or_alike_ones_less_of_it() -> None:
    target, prediction = planted(50, noise=0.5)
    line = straight_line(target, prediction)
    fits = [fit_level_scale(target, prediction, n_eff, 1.0) for n_eff in (50.0, 10.0, 3.0)]
    distances = [abs(each.scale - 1.0) for each in (line, *fits, LevelScale())]
    assert distances == sorted(distances, reverse=True)
    assert fits[0].scale == pytest.approx(line.scale, abs=0.1)
    assert fits[0].level == pytest.approx(0.4, abs=0.15)
    exact = fit_level_scale(0.4 + 1.5 * prediction, prediction, 50.0, 1.0)
    assert (exact.level, exact.scale) == (pytest.approx(0.4), pytest.approx(1.5))


def test_labels_that_contradict_the_predictions_flatten_them_and_never_turn_them_over() -> None:
    target, prediction = planted(30)
    turned = fit_level_scale(-target, prediction, 30.0, 1.0)
    assert turned.scale == LEAST_SCALE
    ends = turned.of(np.array([1.0, 2.0]))
    assert ends[0] < ends[1]


def test_labels_are_the_first_ones_or_spread_over_the_flight() -> None:
    assert chosen_labels(100, 5, consecutive=True).tolist() == [0, 1, 2, 3, 4]
    assert chosen_labels(100, 5, consecutive=False).tolist() == [10, 30, 50, 70, 90]
    assert chosen_labels(7, 7, consecutive=False).tolist() == list(range(7))
    assert share_recovered(4.0, 2.0, 1.0) == pytest.approx(2 / 3)
    assert np.isnan(share_recovered(1.0, 1.0, 1.0))


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_value_interval_and_spread_move_in_the_space_in_which_the_model_learns(offset: float) -> None:
    scaling = TargetScaling(0.2, 0.5, log=True, smearing=1.1, log_offset=offset)
    learned = np.array([-0.5, 0.3, 1.2])
    values = {
        "value": scaling.untransform(learned, 1.1),
        "lower": scaling.untransform(learned - 0.2),
        "upper": scaling.untransform(learned + 0.2),
        "spread": np.full(3, 1e-4),
        "cloud_top_km": np.ones(3),
    }
    line = LevelScale(0.1, 2.0)
    found = moved(values, line, scaling)
    np.testing.assert_allclose(found["value"], scaling.untransform(0.1 + 2.0 * learned, 1.1))
    np.testing.assert_allclose(found["upper"], scaling.untransform(0.1 + 2.0 * (learned + 0.2)))
    assert (found["lower"] < found["upper"]).all()
    more = moved({"value": values["value"] + 1e-4}, line, scaling)["value"]
    np.testing.assert_allclose(found["spread"], more - found["value"], rtol=2e-3)
    np.testing.assert_array_equal(found["cloud_top_km"], 1.0)


# --- whole commands


@pytest.fixture(scope="module")
def brighter(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test flight with another gain, as a new flight."""
    folder = Path(shutil.copytree(campaign(finished) / "sim03", tmp_path_factory.mktemp("new") / "new"))
    with h5py.File(camera_file(folder), "r+") as file:
        signal = file[SIGNAL]
        signal[...] = np.rint(1.3 * signal[...]).astype(signal.dtype)
    return folder


@pytest.mark.no_cover
def test_a_calibrated_export_predicts_and_is_scored_as_any_other(
    finished: Path, brighter: Path, tmp_path: Path, capsys: Any
) -> None:
    source, place = finished.parent / "savedmodels" / "tiny", tmp_path / "calibrated"
    assert main(["calibrate", str(source), str(brighter), "--labels", "20", "-o", str(place), "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["flight"], found["labels"], found["scale"] > 0) == ("new", 20, True)
    assert "from 20 labels of flight new (worth" in told.err
    assert "It holds for flight new only" in told.err
    assert "best straight line (ceiling)" in told.err
    before, after, best = (found["scores"][name]["rmse"] for name in ("before", "after", "best_line"))
    assert best <= after < before

    judged, record = evaluate(place, [str(brighter)], {"evaluation.baselines": False}, QUIET), read_model(place)
    before = judged.scaling.learned(open_record(read_model(source)).predict(judged.examples)["value"])
    line = LevelScale(found["level"], found["scale"])
    np.testing.assert_allclose(judged.scaling.unscale(judged.predictions), line.of(before), rtol=1e-4, atol=1e-5)

    quick = ["--set", "output.report=false"]
    assert main(["predict", str(place), str(brighter), "sim02", "-o", str(tmp_path), *quick]) == 0
    shown = capsys.readouterr().out
    assert "sim02: the model is calibrated to flight new; level and scale of another" in shown
    assert "new: the model is calibrated" not in shown
    with xr.open_dataset(tmp_path / "new.nc", engine="h5netcdf") as file:
        assert record.calibration is not None
        assert file.attrs["calibration"] == record.calibration.words
        assert file.attrs["run_id"] == read_model(source).run


def test_what_cannot_be_calibrated_is_refused(finished: Path, brighter: Path, tmp_path: Path, capsys: Any) -> None:
    def refused(*arguments: str) -> str:
        assert main(["calibrate", str(finished), *arguments, "-o", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
        return str(capsys.readouterr().err)

    few = refused(str(brighter), "--labels", "4")
    assert "--labels must be 5 to 50; from more, go on with `train --init-from`" in few
    copy = shutil.copytree(campaign(finished) / "sim01", tmp_path / "copy")
    assert "copy: the model was trained on this flight (its camera file is that of sim01): a leak" in refused(str(copy))
    assert "has 3 flights, sim01, sim02, sim03; a calibration is of one" in refused(str(campaign(finished)))
    bare = Path(shutil.copytree(brighter, tmp_path / "bare"))
    lidar_file(bare).unlink()
    assert "lidar" in refused(str(bare))
    still = Path(shutil.copytree(brighter, tmp_path / "still"))
    with h5py.File(camera_file(still), "r+") as file:
        file[SIGNAL][:] = file[SIGNAL][0]
    with h5py.File(navigation_file(still), "r+") as file:
        for name in (ZENITH, AZIMUTH, HEADING):
            file[name][:] = file[name][0]
    assert "still: the model predicts next to the same for all 50 labels" in refused(str(still))
    with pytest.raises(DataError, match=r"x: has 4 labels .* a level and a scale need 5 or more\. Label more of it"):
        _choose(4, "x", None, False)
    with pytest.raises(DataError, match=r"x: has 9 labels .* 5 or more, and --labels asks for 10\."):
        _choose(9, "x", 10, False)


def test_a_flight_of_the_training_whose_file_is_gone_is_known_by_its_name(finished: Path, brighter: Path) -> None:
    record = read_model(finished)
    record.description["files"]["sim01"]["camera"] = "/gone.h5"
    assert _trained_on(record, "sim01", camera_file(brighter)).startswith("by its name")
    assert _trained_on(record, "sim02", camera_file(brighter)) == ""


def test_a_calibrated_model_is_not_calibrated_again_and_a_damaged_one_is_told(
    finished: Path, brighter: Path, tmp_path: Path, capsys: Any
) -> None:
    record = read_model(finished)
    found, _ = calibrate(record, str(brighter), 5, True, QUIET)
    assert found.labels == 5
    (tmp_path / "five").mkdir()
    write(tmp_path / "five", record, found)
    with pytest.raises(RunError, match="is calibrated to flight new already"):
        calibrate(read_model(tmp_path / "five"), str(brighter), 5, True, QUIET)
    assert main(["export", str(tmp_path / "five")]) == 2
    assert "is a model that is calibrated to one flight, and this command needs the folder of a run" in (
        capsys.readouterr().err
    )
    path = tmp_path / "five" / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scale": -1.0}))
    with pytest.raises(RunError, match=r"calibration\.json: scale: .*greater than 0.*damaged; make it again"):
        read_model(tmp_path / "five")
