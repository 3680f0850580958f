"""Are other flights of the training's kind? Chance and shift told apart, in words, in the report and as JSON."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import SIGNAL, camera_file, lidar_file, tiny_config, write_flight, write_three_flights
from test_archive import copies
from test_predict import campaign

from cloudml_tf.commands.main import main
from cloudml_tf.data.drift import (
    LIKELY,
    Distribution,
    Series,
    Shift,
    given_label_and_sun,
    kolmogorov_smirnov,
    ks_distance,
    meaning,
    quantiles_of,
)
from cloudml_tf.data.prepare import prepare
from cloudml_tf.evaluation.shift import judge_shift

FRAMES, FLIGHTS = 400, 6


def campaign_of(rng: np.random.Generator, flights: int, between: float, shift: float = 0.0) -> Series:
    """Values of flights whose means differ, inside of which frames differ by 1 and are independent."""
    means = shift + between * rng.standard_normal(flights)
    values = means[:, None] + rng.standard_normal((flights, FRAMES))
    return Series(values.ravel(), np.repeat(np.arange(flights), FRAMES))


def chance(training: Series, others: Series) -> float:
    reference, count = Distribution.of(training), len(np.unique(others.flight))
    found = reference.chance(ks_distance(others.values, np.asarray(reference.quantiles)), count, FRAMES)
    assert found is not None
    return found


@pytest.mark.parametrize("flights", [1, 4])
@pytest.mark.no_cover
def test_flights_that_differ_as_those_of_the_training_do_are_no_shift(flights: int) -> None:
    """Means differ by half a standard deviation, the hardest case: a test on frames calls most of them a shift."""
    rng = np.random.default_rng(1)
    pairs = [(campaign_of(rng, FLIGHTS, 0.5), campaign_of(rng, flights, 0.5)) for _ in range(60)]
    assert sum(chance(*pair) < LIKELY for pair in pairs) <= 4
    plain = [kolmogorov_smirnov(a.values, b.values, len(a.values), len(b.values))[1] for a, b in pairs]
    assert sum(one < LIKELY for one in plain) > 40


def test_a_shift_beyond_that_is_one_and_more_flights_see_a_smaller_one() -> None:
    rng = np.random.default_rng(2)
    found = [chance(campaign_of(rng, FLIGHTS, 0.1), campaign_of(rng, 1, 0.1, shift=1.0)) for _ in range(20)]
    assert max(found) < 0.001
    smaller = [
        np.median([chance(campaign_of(rng, FLIGHTS, 0.1), campaign_of(rng, n, 0.1, shift=0.4)) for _ in range(20)])
        for n in (1, 6)
    ]
    assert smaller[1] < 0.3 * smaller[0]


def test_a_short_flight_may_be_further_away() -> None:
    reference = Distribution.of(campaign_of(np.random.default_rng(3), FLIGHTS, 0.1))
    long, short = (reference.chance(0.3, 1, independent) for independent in (FRAMES, 10.0))
    assert long is not None
    assert short is not None
    assert long < 0.01 < short


def test_an_input_that_is_constant_in_a_flight_is_one_sample() -> None:
    """A sun a flight: six of them say little about a seventh."""
    suns = Series(np.repeat([41.0, 43.0, 48.0, 49.0, 53.0, 55.0], FRAMES), np.repeat(np.arange(6), FRAMES))
    found = Distribution.of(suns)
    assert found.independent == pytest.approx(1.0)
    one = found.chance(1.0, 1, 1.0)
    assert one is not None
    assert one > 0.05


def test_one_training_flight_does_not_tell_how_much_flights_differ() -> None:
    found = Distribution.of(campaign_of(np.random.default_rng(4), 1, 0.1))
    assert found.scatter is None
    assert found.chance(1.0, 1, FRAMES) is None
    assert len(found.quantiles) == 101


def test_light_is_compared_at_equal_label_and_sun() -> None:
    """Thicker clouds under a lower sun are as bright as the line says; the same with a gain is not."""
    rng = np.random.default_rng(5)

    def flight(label_mean: float, zenith: float, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        label = rng.gamma(4.0, label_mean / 4.0, FRAMES)
        given = given_label_and_sun(label, np.full(FRAMES, zenith))
        light = gain * (0.2 * label + 0.5 * np.cos(np.deg2rad(zenith))) + 0.03 * rng.standard_normal(FRAMES)
        return light, given

    def series(*flights: tuple[np.ndarray, np.ndarray]) -> Series:
        number = np.repeat(np.arange(len(flights)), FRAMES)
        light, given = (np.concatenate(part) for part in zip(*flights, strict=True))
        return Series(light, number, given)

    reference = Distribution.of(series(*(flight(1.0, z) for z in (40.0, 44.0, 47.0, 50.0, 53.0, 56.0))))
    assert reference.coefficients[1] == pytest.approx(0.2, abs=0.02)
    found = []
    for other in (flight(1.6, 62.0), flight(1.0, 47.0, gain=1.2)):
        rest = series(other).left(np.asarray(reference.coefficients))
        found.append(reference.chance(ks_distance(rest, np.asarray(reference.quantiles)), 1, FRAMES))
    assert found[0] > 0.001 > found[1]


# --- of files


def test_a_run_keeps_the_distributions_of_its_training_part(tmp_path: Path) -> None:
    write_three_flights(tmp_path / "flights")
    feature = {"name": "zenith", "file": "navigation", "dataset": "nav/solarZenith"}
    prepared = prepare(tiny_config(tmp_path, {"data.features": [feature]}))
    written = json.loads(json.dumps(prepared.description()["distributions"]))
    assert list(written) == [
        "mean radiance of channel 0",
        "solar zenith, degrees",
        "sun's azimuth from the heading, degrees",
        "feature zenith",
        "label optical_depth",
        "mean radiance of channel 0 at equal label and sun",
    ]
    assert written["label optical_depth"]["flights"] == 1
    expected = quantiles_of(prepared.parts["train"].label)
    np.testing.assert_allclose(written["label optical_depth"]["quantiles"], expected, rtol=1e-5)


LIGHT, LABEL, SUN = "mean radiance of channel 0", "label optical_depth", "solar zenith, degrees"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ""),
        ([LIGHT, f"{LIGHT} at equal label and sun"], "At equal labels and sun the mean radiance differs from training"),
        ([LIGHT, LABEL], "Mean radiance and labels differ from training: other clouds"),
        ([LIGHT], "The labels are as in training, the mean radiance is not"),
        ([LABEL], "The mean radiance is as in training, the labels are not"),
        ([SUN], "Sun or further inputs"),
    ],
)
def test_what_shifts_mean_is_said(names: list[str], words: str) -> None:
    made = [
        Shift(name, ["a"], [0.0, 1.0, 2.0], [0.0, 1.5, 3.0], 1.0, 0.5, 1e-6 if name in names else 0.5)
        for name in (LIGHT, f"{LIGHT} at equal label and sun", LABEL, SUN)
    ]
    assert meaning(made).startswith(words)
    assert bool(meaning(made)) == bool(words)
    expected = f"{LABEL} of a: median 1.5, training 1, 1.50 times (+1.00 std); Kolmogorov-Smirnov distance 0.50, "
    assert made[2].sentence().startswith(expected)
    assert "times" not in made[1].sentence()


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_another_gain_is_seen_in_flights_from_files(tmp_path: Path, gain: float) -> None:
    for seed, name in enumerate("abcdefg"):
        write_flight(tmp_path / "flights" / name, seed=seed)
    split = {"kind": "flights", "train": list("abcde"), "val": ["f"], "test": ["g"]}
    config = tiny_config(tmp_path, {"split": split})
    prepared = prepare(config)
    test = prepared.parts["test"]
    found = judge_shift(replace(test, table=test.table * np.float32(gain)), prepared.description(), config)
    assert (found["meaning"] != "") == (found["warnings"] != []) == (gain != 1.0)


@pytest.mark.slow
def test_evaluate_warns_and_shows(finished: Path, tmp_path: Path, capsys: Any) -> None:
    flights = copies(finished, tmp_path / "flights", "a")
    lidar = lidar_file(campaign(finished) / "sim03")
    (flights / "a" / lidar.name).write_bytes(lidar.read_bytes())
    with h5py.File(camera_file(flights / "a"), "r+") as file:
        file[SIGNAL][:] = np.minimum(file[SIGNAL][()].astype("float64") * 4.0, 65000).astype("uint16")
    options = ["--set", "evaluation.baselines=false", "--run-dir", str(tmp_path / "out"), "--json"]
    assert main(["evaluate", str(finished), "--flights", str(flights), *options]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)["metrics"]["shift"]
    assert any("mean radiance of channel 0" in text for text in found["warnings"])
    assert all(f"warning: {text}" in shown.err for text in found["warnings"])
    assert {row["flights"][0] for row in found["compared"]} == {"a"}
    report = (tmp_path / "out/report.html").read_text()
    assert "Inputs and labels compared with training" in report
    assert "median, std" in report


@pytest.mark.slow
def test_an_older_model_says_that_it_cannot_compare(finished: Path, tmp_path: Path, capsys: Any) -> None:
    import shutil

    for name in ("config.json", "data.json", "best.weights.h5"):
        shutil.copy(finished / name, tmp_path)
    description = json.loads((tmp_path / "data.json").read_text())
    del description["distributions"]
    (tmp_path / "data.json").write_text(json.dumps(description))
    options = ["--set", "evaluation.baselines=false", "--set", "output.report=false"]
    assert main(["evaluate", str(tmp_path), "--flights", "sim03", *options, "--run-dir", str(tmp_path / "out")]) == 0
    assert "was trained before the distributions of inputs were kept" in capsys.readouterr().out
