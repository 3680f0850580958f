"""The file and the picture of a prediction: what they hold, and that CF has nothing to say against it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from flight_files import FRAMES, START_S, tiny_config, write_flight
from predictions import POSITION, brightness, faults, model_of, unlabelled

from cloudml_tf.config.run_folder import ModelRecord
from cloudml_tf.data.samples import Samples
from cloudml_tf.inference.about import JUDGED, about, judged_of, without_tier
from cloudml_tf.inference.flags import FLAGS, above_labels
from cloudml_tf.inference.flight import Predicted, predict_flight
from cloudml_tf.inference.model import Model, digest
from cloudml_tf.inference.netcdf import dataset, write_netcdf
from cloudml_tf.inference.quicklook import quick_look
from cloudml_tf.utils.files import write_json

# --- the file


@pytest.fixture
def small(tmp_path: Path) -> tuple[Predicted, Model]:
    """A flight through a model that knows its uncertainty."""
    config = tiny_config(tmp_path)
    flight = unlabelled(write_flight(tmp_path / "flight_a", navigation=POSITION), config)

    def answer(samples: Samples) -> dict[str, np.ndarray]:
        value = brightness(samples)["value"]
        return {"value": value, "lower": value - 0.1, "upper": value + 0.2, "spread": 0.05 * value}

    run = tmp_path / "run"
    run.mkdir()
    (run / "best.weights.h5").write_bytes(b"weights")
    model = Model(ModelRecord(run, config, {"fingerprint": "0"}, {"run": "tiny/run"}), answer, 0.8, "of a test")
    return predict_flight(model, flight), model


def test_the_file_holds_what_was_predicted(small: tuple[Predicted, Model], tmp_path: Path) -> None:
    predicted, model = small
    write_netcdf(tmp_path / "a.nc", predicted, model, "now, by hand")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        assert found.sizes == {"time": FRAMES}
        seconds = (found.time.values - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
        np.testing.assert_allclose(seconds, predicted.flight.time_s)
        depth = found.cloud_optical_depth
        np.testing.assert_array_equal(depth, predicted.values["value"].astype("float32"))
        assert depth.standard_name == "atmosphere_optical_thickness_due_to_cloud"
        assert depth.units == "1"
        named = [f"cloud_optical_depth_{key}" for key in ("lower", "upper", "spread")]
        assert depth.ancillary_variables.split() == [*named, "valid", "quality_flag"]
        np.testing.assert_allclose(found[named[1]] - depth, np.where(predicted.valid, 0.2, np.nan), rtol=1e-4)
        assert found[named[0]].long_name == "cloud optical depth, lower end of the 80 % interval"
        np.testing.assert_array_equal(found.valid, predicted.valid)
        np.testing.assert_array_equal(found.quality_flag, predicted.flags)
        assert found.quality_flag.dtype == found.quality_flag.flag_masks.dtype == np.int16
        assert found.quality_flag.flag_meanings.split() == list(FLAGS)
        np.testing.assert_array_equal(found.longitude, POSITION["nav/longitude"])
        assert found.trajectory.item() == "flight_a"
        expected = {"Conventions": "CF-1.10", "featureType": "trajectory", "history": "now, by hand"}
        expected |= {"camera_file": "TEST_L1B_20240603.h5", "run_id": "tiny/run"}
        assert {key: found.attrs[key] for key in expected} == expected
        assert found.attrs["model_sha256"] == digest(model.record.source)
    assert sorted(path.name for path in tmp_path.glob("*.nc")) == ["a.nc"]


@pytest.mark.parametrize(("name", "cf"), [("cloud_base_km", "cloud_base"), ("cloud_top_km", "cloud_top")])
def test_heights_have_their_names_and_unit(tmp_path: Path, name: str, cf: str) -> None:
    config = tiny_config(tmp_path, {"target.name": name})
    flight = unlabelled(write_flight(tmp_path / "a"), config)
    (tmp_path / "best.weights.h5").write_bytes(b"")
    model = Model(ModelRecord(tmp_path, config, {"fingerprint": "0"}, {"run": "tiny/run"}), brightness)
    found = dataset(predict_flight(model, flight), model, "")[f"{cf}_altitude"]
    assert (found.standard_name, found.units) == (f"{cf}_altitude", "km")


def test_the_cf_checker_has_nothing_to_say(small: tuple[Predicted, Model], tmp_path: Path) -> None:
    predicted, model = small
    write_netcdf(tmp_path / "a.nc", predicted, model, "now")
    assert faults(tmp_path / "a.nc") == []
    with h5py.File(tmp_path / "a.nc", "r+") as file:  # the checker is awake
        file["cloud_optical_depth"].attrs["units"] = "furlongs"
    assert any("furlongs" in text for text in faults(tmp_path / "a.nc"))


def test_a_file_without_positions_is_valid_too(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    (tmp_path / "best.weights.h5").write_bytes(b"")
    model = Model(ModelRecord(tmp_path, config, {"fingerprint": "0"}, {"run": "tiny/run"}), brightness)
    predicted = predict_flight(model, unlabelled(write_flight(tmp_path / "a"), config))
    write_netcdf(tmp_path / "a.nc", predicted, model, "now")
    assert faults(tmp_path / "a.nc") == []
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as found:
        assert set(found.variables) == {"time", "cloud_optical_depth", "valid", "quality_flag"}
        assert "featureType" not in found.attrs


def test_a_picture_is_drawn_also_where_nothing_could_be_predicted(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"temporal_frames": 15})
    folder = write_flight(tmp_path / "a", frame_s=START_S + 9.0 * np.arange(FRAMES) ** 1.5)
    config = tiny_config(tmp_path, {"data.camera.max_gap_s": 1.0})
    predicted = predict_flight(model_of(config, brightness), unlabelled(folder, config))
    assert not predicted.valid.any()
    drawn = quick_look(predicted, "a", "depth", "")
    assert drawn.write(tmp_path) == tmp_path / "a.png"
    assert drawn.figure.axes[-1].get_xlabel() == "minutes"


def test_the_line_of_a_long_flight_keeps_its_extremes_and_gaps() -> None:
    from cloudml_tf.inference.quicklook import DRAWN, _extremes

    values = np.random.default_rng(0).standard_normal(10 * DRAWN)
    values[5000:5600] = np.nan
    values[777], values[9000] = 50.0, -50.0
    kept = _extremes(values)
    assert len(kept) <= DRAWN
    assert {777, 9000} <= set(kept)
    assert np.isnan(values[kept]).any()
    assert (np.diff(kept) > 0).all()
    assert len(_extremes(values[:100])) == 100


def test_bits_without_value_and_bits_of_caution_part_the_flags(small: tuple[Predicted, Model]) -> None:
    quality = dataset(*small, "").quality_flag
    without, caution = (int(quality.attrs[name]) for name in ("bits_without_value", "bits_of_caution"))
    assert without & caution == 0
    assert without | caution == sum(int(mask) for mask in quality.flag_masks)
    predicted = small[0]
    np.testing.assert_array_equal(predicted.flags & without == 0, predicted.valid)


@pytest.mark.parametrize(
    ("metrics", "tier", "warned"),
    [
        ({"test": {"r2": 0.018, "variance_ratio": 0.31, "n": 120, "n_eff": 9.2}, "tier": {"name": "none"}}, "none", 1),
        ({"test": {"r2": 0.81, "n": 120}, "tier": {"name": "good"}, "space": {"loss": "ln(cod)"}}, "good", 0),
        (None, "not evaluated", 0),
    ],
)
def test_a_model_says_how_it_was_judged_and_what_it_was_shown(
    tmp_path: Path, metrics: dict[str, Any] | None, tier: str, warned: int
) -> None:
    label = {"minimum": 0.25, "low": 0.26, "high": 3.0, "maximum": 3.2}
    ranges = {"radiance": [], "solar_zenith_deg": None, "relative_azimuth_deg": None, "features": [], "label": label}
    description = {"split": {"test": {"flights": ["sim03"]}}, "ranges": ranges}
    config = tiny_config(tmp_path, {"data.lidar.clear_sky": "zero", "target.minimum": 0.0})
    export = {"run": "tiny/run", JUDGED: judged_of(metrics)}
    found = about(ModelRecord(tmp_path, config, description, export))
    if metrics is not None:
        write_json(tmp_path / "metrics.json", metrics)
    assert found == about(ModelRecord(tmp_path, config, description, {}))
    assert (found["model_tier"], found["model_test_flights"]) == (tier, "sim03")
    assert found["training_label_range"] == "0.25 to 3.2"
    assert found["clear_sky_in_training"] == "yes, with the label 0"
    assert len(without_tier(found)) == warned
    if metrics is not None:
        assert f"n = 120, effectively {'9' if warned else '-'}" in found["model_test_scores"]
    if warned:
        assert "R² 0.018, s 31.0 %, r -" in without_tier(found)[0]


def test_a_height_above_all_training_labels_has_a_flag(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, {"target.name": "cloud_top_km", "target.maximum": 3.0})
    assert above_labels(np.array([2.0, 3.0, 3.1, np.nan]), config, None).tolist() == [False, False, True, False]
    depth = tiny_config(tmp_path, {"target.maximum": 3.0})
    assert not above_labels(np.full(2, 99.0), depth, None).any()  # that is opaque
