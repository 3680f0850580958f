"""What may be called healthy: a run that its test split shows to be, by the numbers of the table above."""

from typing import Any

from cloudml_tf.config.load import parse_config
from cloudml_tf.diagnostics.diagnosis.evidence import Evidence
from cloudml_tf.diagnostics.diagnosis.verdict import judge_run
from cloudml_tf.evaluation.scores import tier

SPLIT = {"kind": "flights", "train": ["a"], "val": ["b"], "test": ["c"]}


def part(r2: float, r: float, s: float, n_eff: float = 60.0) -> dict[str, Any]:
    """Scores of a split whose labels have the std 1; the bias is what R² leaves."""
    bias = max(r * r - (s - r) ** 2 - r2, 0.0) ** 0.5
    error = max((1 - r2) ** 0.5, 0.0)
    found = {"r2": r2, "correlation": r, "variance_ratio": s, "bias": bias, "target_std": 1.0, "n": 200, "n_eff": n_eff}
    return {**found, "rmse": error, "mae": 0.8 * error, "pred_spread": s * 4.0, "target_spread": 4.0}


def judged(test: dict[str, Any] | None, ridge: float, val: dict[str, Any] | None = None) -> dict[str, Any]:
    config = parse_config({"experiment_name": "x", "split": SPLIT})
    parts = {"train": part(0.8, 0.9, 0.9, n_eff=200.0), "val": val or part(0.5, 0.75, 0.7)}
    parts |= {} if test is None else {"test": test}
    reference = {"val": part(0.5, 0.75, 0.7), "test": part(ridge, 0.9, 0.9)}
    metrics = {**parts, "tier": tier(test or parts["val"]), "baselines": {"ridge": reference}}
    names = {name: {"flights": SPLIT[name], "sequences": 200} for name in ("train", "val", "test")}
    return judge_run(Evidence.of(metrics, [], config, {"split": names, "nadir": [1, 1]}))


def test_a_flight_whose_level_and_scale_are_wrong_is_not_healthy_though_all_means_agree() -> None:
    found = judged(part(0.018, 0.92, 0.31), ridge=0.32)
    assert found["verdict"] not in ("healthy", "unclear")  # a cause is named


def test_the_test_split_has_to_show_it() -> None:
    assert judged(part(0.45, 0.7, 0.6), ridge=0.46)["verdict"] == "healthy"
    assert judged(part(0.45, 0.7, 0.6), ridge=0.85)["verdict"] != "healthy"
    assert judged(part(0.45, 0.7, 0.39), ridge=0.46)["verdict"] != "healthy"
    assert judged(part(0.29, 0.6, 0.6), ridge=0.29)["verdict"] != "healthy"


def test_evidence_quotes_the_row_of_the_table() -> None:
    found = judged(part(0.45, 0.7, 0.6), ridge=0.46)
    assert "baselines find on the test (ridge: R² 0.46); test: R² 0.45, r 0.70, s 0.60" in found["summary"]


def test_an_unclear_run_says_that_a_straight_line_would_do() -> None:
    found = judged(part(0.51, 0.87, 0.5), ridge=0.85)
    assert found["verdict"] == "unclear"
    assert "level and scale are wrong on the test flights. R² is 0.51, and a straight line" in found["summary"]
    assert "would have r² = 0.76" in found["summary"]
    assert "ridge on the test: R² 0.85" in found["summary"]


def test_without_a_test_split_nothing_is_healthy_unless_it_is_still_trained() -> None:
    assert judged(None, ridge=0.5)["verdict"] != "healthy"
