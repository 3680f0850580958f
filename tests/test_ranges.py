"""What training has shown the network, kept with the run: ranges of inputs and labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from flight_files import AZIMUTH, FRAMES, ZENITH, tiny_config, write_three_flights

from cloudml_tf.config.training import Augmentation
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.training_ranges import Range, TrainingRanges, folded


def test_a_range_leaves_a_thousandth_at_either_end() -> None:
    found = Range.of(np.arange(10_000.0))
    assert (found.minimum, found.low, found.high, found.maximum) == (0.0, 9.0, 9989.0, 9999.0)
    assert found.outside(np.array([8.0, 9.0, 9989.0, 9990.0, np.nan])).tolist() == [True, False, False, True, False]
    assert found.outside(np.array([8.0]), slack=1.0).tolist() == [False]


@pytest.mark.parametrize("turned", [0.0, 100.0, 175.0, -90.0])
def test_an_arc_is_the_same_wherever_it_lies(turned: float) -> None:
    """Directions from -20 to 20 degrees, turned: also where they pass 180."""
    wrapped = (np.linspace(-20.0, 20.0, 41) + turned + 180.0) % 360.0 - 180.0
    found = Range.of_arc(wrapped)
    assert found.maximum - found.minimum == pytest.approx(40.0)
    away = (np.array([-22.0, -19.0, 0.0, 19.0, 22.0, 180.0]) + turned + 180.0) % 360.0 - 180.0
    assert found.outside_arc(away, slack=1.0).tolist() == [True, False, False, False, True, True]
    assert not found.outside_arc(np.array([np.nan])).any()


def test_one_direction_is_an_arc_too() -> None:
    found = Range.of_arc(np.full(5, 60.0))
    assert (found.minimum, found.maximum) == (60.0, 60.0)
    assert found.outside_arc(np.array([60.0, 300.0, -300.0])).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("across", "along", "same"),
    [(True, False, [30, -30]), (False, True, [30, 150]), (True, True, [30, -30, 150, -150])],
)
def test_mirrored_directions_are_one(across: bool, along: bool, same: list[float]) -> None:
    settings = Augmentation(mirror_across_track=across, mirror_along_track=along)
    np.testing.assert_allclose(folded(np.array(same, "float64"), settings), 30.0)
    assert len(np.unique(np.round(folded(np.array([30.0, -60.0]), settings)))) == 2


def test_the_run_knows_the_training_part_alone(tmp_path: Path) -> None:
    """Flight a trains: its sun is at 40 degrees; b and c do not count."""
    root = write_three_flights(tmp_path / "flights")
    for name in "bc":
        write_other_sun(root / name)
    feature = {"name": "zenith", "file": "navigation", "dataset": ZENITH}
    prepared = prepare(tiny_config(tmp_path, {"data.features": [feature]}))
    train, found = prepared.parts["train"], TrainingRanges.from_json(prepared.details["ranges"])
    means = train.table[np.unique(train.index)].mean(axis=(1, 2, 3), dtype="float64")
    assert (found.radiance[0].minimum, found.radiance[0].maximum) == (means.min(), means.max())
    assert found.solar_zenith_deg == Range(40.0, 40.0, 40.0, 40.0)
    assert found.relative_azimuth_deg == Range(60.0, 60.0, 60.0, 60.0)
    assert found.features == [Range(40.0, 40.0, 40.0, 40.0)]
    assert found.label == Range.of(train.label)
    apart = "zenith 70°, training has 40°; azimuth 80°, training has 60°"
    assert prepared.far == [f"validation flight b: {apart}", f"test flight c: {apart}"]
    assert prepared.description()["sun_outside_training"] == prepared.far
    written = json.loads(json.dumps(prepared.description()["ranges"]))
    assert TrainingRanges.from_json(written) == found


def write_other_sun(folder: Path) -> None:
    import h5py
    from flight_files import navigation_file

    with h5py.File(navigation_file(folder), "r+") as file:
        file[ZENITH][:], file[AZIMUTH][:] = np.full(FRAMES, 70.0), np.full(FRAMES, 10.0)


def test_without_sun_angles_there_is_no_range_of_them(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    found = TrainingRanges.from_json(prepare(tiny_config(tmp_path, {"data.sun_angles": False})).details["ranges"])
    assert found.solar_zenith_deg is None
    assert found.relative_azimuth_deg is None
    assert TrainingRanges.from_json(found.to_json()) == found
