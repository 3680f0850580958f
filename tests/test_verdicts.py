"""What may be called healthy: a run that its test split shows to be, by the numbers of the table above."""

from typing import Any

from cloudml_tf.config.load import parse_config
from cloudml_tf.diagnostics.between_flights import Seen
from cloudml_tf.diagnostics.diagnosis.evidence import Evidence, Probes
from cloudml_tf.diagnostics.diagnosis.verdict import judge_run
from cloudml_tf.evaluation.scores import tier

SPLIT = {"kind": "flights", "train": ["a"], "val": ["b"], "test": ["c"]}


def part(r2: float, r: float, s: float, n_eff: float = 60.0) -> dict[str, Any]:
    """Scores of a split whose labels have the std 1; the bias is what R² leaves."""
    bias = max(r * r - (s - r) ** 2 - r2, 0.0) ** 0.5
    error = max((1 - r2) ** 0.5, 0.0)
    found = {"r2": r2, "correlation": r, "variance_ratio": s, "bias": bias, "target_std": 1.0, "n": 200, "n_eff": n_eff}
    return {**found, "rmse": error, "mae": 0.8 * error, "pred_spread": s * 4.0, "target_spread": 4.0}


def judged(
    test: dict[str, Any] | None,
    ridge: float,
    val: dict[str, Any] | None = None,
    per_flight: dict[str, Any] | None = None,
    probes: Probes | None = None,
    **settings: Any,
) -> dict[str, Any]:
    config = parse_config({"experiment_name": "x", "split": SPLIT, **settings})
    parts = {"train": part(0.8, 0.9, 0.9, n_eff=200.0), "val": val or part(0.5, 0.75, 0.7)}
    parts |= {} if test is None else {"test": test}
    reference = {"val": part(0.5, 0.75, 0.7), "test": part(ridge, 0.9, 0.9)}
    metrics = {**parts, "tier": tier(test or parts["val"]), "baselines": {"ridge": reference}}
    metrics["per_flight"] = per_flight or {}
    labels = {"sequences": 200, "label_mean": 0.9, "label_std": 0.5}
    names = {name: {"flights": SPLIT[name], **labels} for name in ("train", "val", "test")}
    return judge_run(Evidence.of(metrics, [], config, {"split": names, "nadir": [1, 1]}, probes))


def test_a_flight_whose_level_and_scale_are_wrong_is_not_healthy_though_all_means_agree() -> None:
    found = judged(part(0.018, 0.92, 0.31), ridge=0.32)
    assert found["verdict"] == "flight shift"
    assert "c (test): R² 0.02, r 0.92, s 0.31" in found["summary"]
    assert "r² is 0.85, so level and scale cost 0.83 of R²" in found["summary"]
    assert [finding["name"] for finding in found["findings"]] == ["flight shift"]
    assert any("ridge R² 0.32 at r 0.90" in text for text in found["findings"][0]["evidence"])


def test_the_test_split_has_to_show_it() -> None:
    assert judged(part(0.45, 0.7, 0.6), ridge=0.46)["verdict"] == "healthy"
    assert judged(part(0.45, 0.7, 0.6), ridge=0.85)["verdict"] != "healthy"
    assert judged(part(0.45, 0.7, 0.39), ridge=0.46)["verdict"] != "healthy"
    assert judged(part(0.29, 0.6, 0.6), ridge=0.29)["verdict"] != "healthy"


def test_evidence_quotes_the_row_of_the_table() -> None:
    found = judged(part(0.45, 0.7, 0.6), ridge=0.46)
    assert "baselines find on the test (ridge: R² 0.46); test: R² 0.45, r 0.70, s 0.60" in found["summary"]


def test_a_shift_that_chance_may_be_is_left_unclear_and_a_straight_line_told() -> None:
    found = judged(part(0.45, 0.87, 0.6, n_eff=7.0), ridge=0.85)
    assert found["verdict"] == "unclear"
    assert "level and scale are wrong on the test flights. R² is 0.45, and a straight line" in found["summary"]
    assert "would have r² = 0.76" in found["summary"]
    assert "ridge on the test: R² 0.85" in found["summary"]


def test_level_and_scale_that_training_has_too_are_no_matter_of_the_flight() -> None:
    found = judged(part(0.2, 0.6, 1.0), ridge=0.36, val=part(0.2, 0.6, 1.0))  # noise: r is lost as well
    assert "flight shift" not in [finding["name"] for finding in found["findings"]]


def test_flights_are_ranked_by_what_level_and_scale_cost() -> None:
    flights = {
        "train": {"a": part(0.8, 0.9, 0.9)},
        "val": {"b": part(0.1, 0.8, 0.9)},
        "test": {"c": part(0.2, 0.9, 0.9)},
    }
    found = judged(part(0.2, 0.9, 0.9), ridge=0.1, val=part(0.1, 0.8, 0.9), per_flight=flights)
    assert found["verdict"] == "flight shift"
    ranked = next(text for text in found["findings"][0]["evidence"] if text.startswith("flights by"))
    assert ranked.endswith("R²: c (test) 0.61, b (val) 0.54, a (train) 0.01")


def seen(**changes: Any) -> Seen:
    """A flight like the others."""
    usual = {"labels": 200, "worth": 100.0, "mean": 0.9, "std": 0.5, "brightness": 0.2, "ratio": 1.0}
    return Seen(**{**usual, "below": 0.0, "above": 0.0, "by_chance": 0.01, "repeated": 0.0, "own_r": 0.8, **changes})


def test_labels_of_another_scale_are_told_beside_the_images() -> None:
    probes = Probes(flights={"a": seen(), "b": seen(), "c": seen(mean=0.36, std=0.2, ratio=1.6)})
    test = part(-2.0, 0.9, 1.8)
    found = judged(test, ridge=-2.0, probes=probes, per_flight={"test": {"c": test}})
    assert found["verdict"] == "flight shift"
    text = " ".join(found["findings"][0]["evidence"])
    assert "labels of c: 0.36 ± 0.2; training 0.9 ± 0.5" in text
    assert "its labels are 0.40 times theirs: look at unit, wavelength and scale of the labels first" in text
    assert found["findings"][0]["set"] == []  # no gain is tried


def test_the_gain_to_be_varied_is_that_of_the_flights_and_what_is_per_frame_is_taken_back() -> None:
    probes = Probes(flights={"a": seen(), "b": seen(ratio=0.95), "c": seen(ratio=1.5)})
    test = part(0.1, 0.9, 1.0)
    settings = {"preprocessing": {"per_frame": True}, "augmentation": {"gain_std": 0.02}}
    found = judged(test, ridge=0.1, probes=probes, per_flight={"test": {"c": test}}, **settings)
    assert found["findings"][0]["set"] == ["augmentation.gain_std=0.27", "preprocessing.per_frame=false"]


def test_clear_sky_that_training_never_had_is_named() -> None:
    probes = Probes(flights={"a": seen(), "b": seen(), "c": seen(below=0.5, mean=0.4)})
    test = part(-1.0, -0.1, 0.8)
    found = judged(test, ridge=-1.0, probes=probes, per_flight={"test": {"c": test}})
    assert found["verdict"] == "unseen labels"
    assert found["summary"] == "50% of the labels of c are under all those of the training"


def test_few_labels_that_lie_outside_by_chance_are_not_blamed() -> None:
    probes = Probes(flights={"a": seen(), "b": seen(), "c": seen(below=0.3, worth=9.0, by_chance=0.1)})
    test = part(-1.0, -0.1, 0.8)
    found = judged(test, ridge=-1.0, probes=probes, per_flight={"test": {"c": test}})
    assert found["verdict"] != "unseen labels"


def test_training_flights_with_far_less_r_than_the_others_are_named() -> None:
    flights = {"train": {"a": part(0.8, 0.9, 0.9), "d": part(0.8, 0.9, 0.9), "e": part(-0.1, 0.05, 0.5)}}
    found = judged(part(0.6, 0.8, 0.8), ridge=0.5, per_flight=flights)
    assert found["verdict"] == "foreign labels"
    assert found["summary"] == "r of training flights: e 0.05; the others 0.90 to 0.90"


def test_a_training_flight_of_one_label_is_noted() -> None:
    probes = Probes(flights={"a": seen(repeated=1.0, std=0.0)})
    constant = {**part(0.0, 0.0, 0.0), "target_std": 0.0, "correlation": None, "r2": None}
    found = judged(part(0.6, 0.8, 0.8), ridge=0.5, probes=probes, per_flight={"train": {"a": constant}})
    assert found["verdict"] == "healthy"
    assert any("100% of the labels of a are one value" in text for text in found["notes"])


def test_without_a_test_split_nothing_is_healthy_unless_it_is_still_trained() -> None:
    assert judged(None, ridge=0.5)["verdict"] != "healthy"
