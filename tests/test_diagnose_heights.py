"""Verdicts about heights: what the frames of planted layers show, and the failures that are named after it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flight_files import tiny_config
from test_height_network import ALTITUDE_KM, FRAMES, HEIGHT_MODEL, SCALE, SPEED, moving

from cloudml_tf.config.schema import Config
from cloudml_tf.data.plane_sweep import Axes, Sight
from cloudml_tf.data.samples import Samples
from cloudml_tf.diagnostics.diagnosis.evidence import Evidence, Parallax, Probes
from cloudml_tf.diagnostics.diagnosis.parallax import parallax_of, spoilt_predictions
from cloudml_tf.diagnostics.diagnosis.verdict import judge_run
from cloudml_tf.evaluation.scores import scores, scores_with_intervals
from cloudml_tf.nn.sightlines import ALTITUDE, FORWARD, ROLL, TIME, WIND_FORWARD, WIND_RIGHT

WANDER = 0.08 * np.random.default_rng(3).standard_normal(FRAMES).clip(-1.5, 1.5)  # degrees of roll


def flown(roll: Any = 0.0, wind: tuple[float, float] = (0.0, 0.0), told: dict[int, Any] | None = None) -> Samples:
    """Sequences of five frames over a layer at 2 km; `told` are columns of the geometry that the files have."""
    images = moving(np.full(FRAMES, 2.0), roll=roll, wind=wind)
    geometry = np.zeros((FRAMES, 9))
    geometry[:, TIME], geometry[:, ALTITUDE], geometry[:, 2] = np.arange(FRAMES), ALTITUDE_KM, SCALE
    geometry[:, FORWARD] = SPEED
    for column, value in (told or {}).items():
        geometry[:, column] = value
    index = np.arange(2, FRAMES - 2)[:, None] + np.arange(-2, 3)
    n = len(index)
    return Samples(
        table=(4.0 + images[..., None]).astype("float32"),
        sun_angles_deg=None,
        features=np.zeros((FRAMES, 0)),
        index=index,
        label=np.full(n, 2.0),
        weight=np.ones(n),
        time_s=np.arange(2.0, FRAMES - 2),
        flight=np.zeros(n, int),
        piece=np.zeros(n, int),
        flight_names=("a",),
        nadir=(images.shape[1] // 2, images.shape[2] // 2),
        sight=Sight(geometry, Axes(1, 1, 1), np.arange(31) * 0.2),
    )


def seen(samples: Samples) -> Parallax:
    return parallax_of(samples)


def test_frames_lie_on_one_another_where_the_geometry_is_right():
    found = seen(flown(WANDER, (5.0, 20.0), {ROLL: WANDER, WIND_FORWARD: 5.0, WIND_RIGHT: 20.0}))
    assert found.followed > 0.9
    assert found.km_per_m_s == pytest.approx(18.0 / 195.0, rel=1e-3)
    assert found.px_per_km == pytest.approx(4 * 195.0 / 18.0 * SCALE / 1000.0 / 18.0, rel=0.02)
    assert abs(found.drift_m_s["a"]) < 1.0
    assert found.calm == ()
    assert found.attitude[0].restless_px < 0.05


def test_a_wind_that_is_not_told_is_measured_across_the_track():
    found = seen(flown(wind=(0.0, 20.0)))
    assert found.drift_m_s["a"] == pytest.approx(20.0, abs=1.0)
    assert found.calm == ("a",)


def test_one_frame_or_no_geometry_shows_no_height():
    samples = flown()
    assert seen(replace(samples, sight=None)).px_per_km == 0.0
    one = seen(replace(samples, index=samples.index[:, 2:3]))
    assert (one.px_per_km, one.why) == (0.0, "one frame has none (temporal_frames 1)")


# --- verdicts ---


def config_of(**changes: Any) -> Config:
    model = {"model": dict(HEIGHT_MODEL), "temporal_frames": 5, "data.sun_angles": False}
    return tiny_config(changes.pop("home"), {"target.name": "cloud_top_km", **model, **changes})


def judged(config: Config, probes: Probes, shift_km: float = 0.0, follow: float = 0.9) -> dict[str, Any]:
    """The diagnosis of predictions that follow each flight's own heights to a degree, and are shifted in test."""
    rng = np.random.default_rng(1)
    metrics: dict[str, Any] = {"per_flight": {}, "training": {}, "tier": {"name": "none"}, "baselines": {}}
    level = {"train": (1.0, 3.0, 4.5), "val": (2.0,), "test": (2.5,)}
    noise = 0.4 * (1.0 - follow**2) ** 0.5
    for part, means in level.items():
        label, predicted, flights = [], [], {}
        for number, mean in enumerate(means):
            inside = 0.4 * rng.standard_normal(300)
            answer = mean + follow * inside + noise * rng.standard_normal(300) + shift_km * (part == "test")
            flights[f"{part}{number}"] = scores(mean + inside, answer)
            label.append(mean + inside)
            predicted.append(answer)
        metrics["per_flight"][part] = flights
        blocks = np.arange(300 * len(means)) // 30
        metrics[part] = scores_with_intervals(np.concatenate(label), np.concatenate(predicted), blocks, 150.0, 50)
    split = {part: {"flights": list(found), "sequences": 300} for part, found in metrics["per_flight"].items()}
    return judge_run(Evidence.of(metrics, [], config, {"split": split, "nadir": [1, 1]}, probes))


PLAIN = seen(flown(WANDER, told={ROLL: WANDER}))


def names(found: dict[str, Any]) -> list[str]:
    return [finding["name"] for finding in found["findings"]]


def test_a_run_that_reads_heights_is_healthy_with_the_bias_that_wind_can_make(tmp_path):
    found = judged(config_of(home=tmp_path), Probes(parallax=PLAIN), shift_km=0.25)
    assert found["verdict"] == "healthy"
    assert "largest bias +0.2" in found["summary"]


def test_wind_is_named_by_the_drift_or_by_a_large_shift_and_not_called_a_bias(tmp_path):
    config = config_of(home=tmp_path)
    drifting = judged(config, Probes(parallax=seen(flown(wind=(0.0, 20.0)))))
    assert names(drifting) == ["wind"]
    assert "clouds drift across the track by 20" in drifting["summary"]
    shifted = judged(config, Probes(parallax=PLAIN), shift_km=0.5)
    assert names(shifted) == ["wind"]
    assert "as by a wind along the track that is 5." in shifted["summary"]


def test_roll_of_the_wrong_sign_is_named_with_the_setting_that_mends_it(tmp_path):
    turned = Probes(parallax=seen(flown(WANDER, told={ROLL: -WANDER})))
    found = judged(config_of(home=tmp_path), turned)
    assert found["verdict"] == "attitude"
    assert found["findings"][0]["set"] == ["data.geometry.roll_positive=left wing down"]
    unknown = judged(config_of(home=tmp_path), Probes(parallax=seen(flown(WANDER))))
    assert "not recorded, or constant, and frames are restless" in unknown["summary"]


def test_a_network_that_tells_flights_apart_has_learned_the_flight(tmp_path):
    found = judged(config_of(home=tmp_path), Probes(parallax=PLAIN), follow=0.0)
    assert names(found) == ["learned the flight"]
    assert "over all flights, 0.00 within" in found["findings"][0]["evidence"][1]
    blind = Probes(parallax=PLAIN, moved={"the frames of each sequence in reverse order": 0.1})
    found = judged(config_of(home=tmp_path), blind, follow=0.4)
    assert names(found) == ["learned the flight"]
    assert "change by 10% of their spread" in found["findings"][0]["evidence"][2]


def test_without_parallax_nothing_else_is_blamed(tmp_path):
    apart = Probes(parallax=replace(PLAIN, px_per_km=0.2))
    found = judged(config_of(home=tmp_path), apart, follow=0.0)
    assert names(found) == ["no parallax"]
    assert found["findings"][0]["evidence"] == [
        "nothing shows a height: 1 km of height moves a cloud by 0.20 px between the outermost frames"
    ]


def test_a_network_of_heights_answers_otherwise_where_frames_are_spoilt(tmp_path, monkeypatch):
    from test_height_network import network

    import cloudml_tf.train.network

    monkeypatch.setattr(cloudml_tf.train.network, "load_regressor", lambda *_: network(attention=False))
    samples = flown(WANDER, told={ROLL: WANDER})
    heights = replace(samples, sight=replace(samples.sight, network_input=True))
    moved = spoilt_predictions(tmp_path, config_of(home=tmp_path), {}, heights)
    assert len(moved) == 2
    assert min(moved.values()) > 0.1
