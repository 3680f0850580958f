"""What the labelled frames of flights show beside each other: planted series of labels and brightness."""

import numpy as np
import pytest

from cloudml_tf.diagnostics.between_flights import Series, look, repeated
from cloudml_tf.diagnostics.gain import ratios_at_labels

COUNT = 150


def flights(count: int = 4, seed: int = 0) -> dict[str, Series]:
    """Flights whose brightness follows the labels, with a label every 3 s."""
    rng = np.random.default_rng(seed)
    found = {}
    for number in range(count):
        label = np.exp(0.5 * rng.standard_normal(COUNT))
        light = 0.05 + 0.1 * label[:, None] * (1 + 0.1 * rng.standard_normal((COUNT, 1)))
        found[f"f{number}"] = Series(1000.0 * number + 3.0 * np.arange(COUNT), label, light)
    return found


def test_flights_that_are_alike() -> None:
    seen = look(flights(), ["f0", "f1"])
    assert {one.fits for one in seen.values()} == {""}
    assert max(one.outside for one in seen.values()) < 0.05
    assert max(one.repeated for one in seen.values()) < 0.05
    assert min(one.own_r for one in seen.values()) > 0.9
    assert all(one.ratio == pytest.approx(1.0, abs=0.1) for one in seen.values())


@pytest.mark.parametrize("late", [0, 3])
def test_labels_of_another_flight_are_found(late: int) -> None:
    """Flights need not begin at the same label."""
    kept = flights()
    changed = dict(kept)
    for name, other in (("f1", "f2"), ("f2", "f1")):
        changed[name] = Series(kept[name].time_s, np.roll(kept[other].label, late), kept[name].brightness)
    seen = look(changed, ["f0", "f1"])
    assert (seen["f1"].fits, seen["f2"].fits) == ("f2", "f1")
    assert seen["f1"].fits_r > 0.9
    assert seen["f1"].own_r < 0.3
    assert (seen["f0"].fits, seen["f3"].fits) == ("", "")


def test_few_labels_and_labels_that_are_all_equal_fit_nothing() -> None:
    kept = flights()
    short = Series(*(values[:10] for values in (kept["f1"].time_s, kept["f2"].label, kept["f1"].brightness)))
    flat = Series(kept["f2"].time_s, np.full(COUNT, 0.9), kept["f2"].brightness)
    seen = look({**kept, "f1": short, "f2": flat}, ["f0"])
    assert (seen["f1"].fits, seen["f2"].fits) == ("", "")
    assert seen["f2"].repeated == 1.0
    assert seen["f2"].worth == 1.0


def test_clear_sky_may_repeat() -> None:
    label = np.r_[np.zeros(100), np.linspace(0.1, 2.0, 50)]
    assert repeated(label) == pytest.approx(1 / 150)


def test_labels_that_training_does_not_have() -> None:
    kept = flights()
    kept["f3"] = Series(kept["f3"].time_s, np.where(np.arange(COUNT) % 2, kept["f3"].label, 0.0), kept["f3"].brightness)
    seen = look(kept, ["f0", "f1", "f2"])
    assert seen["f3"].below == pytest.approx(0.5, abs=0.05)
    assert seen["f2"].outside == 0.0


def test_brightness_at_equal_labels_of_the_channel_that_is_furthest_from_1() -> None:
    pairs = {name: (one.label, np.repeat(one.brightness, 2, axis=1)) for name, one in flights().items()}
    pairs["f2"][1][:, 1] *= 1.4
    ratios = ratios_at_labels(pairs)
    assert ratios["f2"] == pytest.approx(1.4, rel=0.1)
    assert ratios["f0"] == pytest.approx(1.0, rel=0.1)
    assert ratios_at_labels({name: pairs[name] for name in ("f0", "f1")}) == {}
