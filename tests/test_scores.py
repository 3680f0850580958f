"""Scores, intervals, tiers and acceptance, against numbers worked out by hand and the original's own limits."""

import re
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.data import independence
from cloudml_tf.evaluation import scores

RNG = np.random.default_rng(4)


def make(r: float, s: float, bias: float = 0.0, n: int = 4000, std: float = 0.483) -> tuple[np.ndarray, np.ndarray]:
    """Target and prediction with exactly this correlation, ratio and bias (in target stds)."""
    a = RNG.normal(size=n)
    a = (a - a.mean()) / a.std()
    b = RNG.normal(size=n)
    b -= b.mean() + a * (a @ b) / n
    b /= b.std()
    return 0.9 + std * a, 0.9 + std * (bias + s * (r * a + np.sqrt(1 - r * r) * b))


def test_scores_by_hand() -> None:
    # t = (0, 2, 4), p = (1, 2, 3): mean 2 both, Σ(t-2)² = 8, Σe² = 2, so R² = 3/4; s = 1/2, r = 1.
    found = scores.scores(np.array([0.0, 2, 4]), np.array([1.0, 2, 3]))
    assert found["r2"] == pytest.approx(0.75)
    assert found["variance_ratio"] == pytest.approx(0.5)
    assert found["correlation"] == pytest.approx(1.0)
    assert found["r2_ceiling"] == pytest.approx(1.0)
    assert found["mae"] == pytest.approx(2 / 3)
    assert found["rmse"] == pytest.approx(np.sqrt(2 / 3))
    assert (found["pred_spread"], found["target_spread"], found["bias"], found["n"]) == (2.0, 4.0, 0.0, 3)


@pytest.mark.parametrize(("r", "s", "bias"), [(0.14, 1.0, 0.0), (0.067, 0.034, 0.45), (0.9, 0.7, -0.2)])
def test_the_identity(r: float, s: float, bias: float) -> None:
    found = scores.scores(*make(r, s, bias))
    assert found["r2"] == pytest.approx(2 * r * s - s * s - bias * bias, abs=1e-9)


def test_the_originals_three_runs_have_their_r2() -> None:
    # R², s and r of its table; its third run's R² is nearly all bias
    for r2, s, r, b in ((-0.0457, 0.400, 0.143, 0.01), (-0.0226, 0.039, 0.054, 0.16), (-0.2034, 0.034, 0.067, 0.45)):
        assert scores.scores(*make(r, s, b))["r2"] == pytest.approx(r2, abs=0.005)


@pytest.mark.parametrize(
    ("r", "s", "name", "failing"),
    [
        (0.14, 1.0, "none", "R²"),
        (0.60, 0.75, "none", "RMSE/std(label)"),
        (0.78, 0.80, "minimum", "s 0.800, needs over 0.85"),
        (0.82, 0.90, "good", "s 0.900, needs over 0.95"),
        (0.93, 0.97, "excellent", ""),
    ],
)
def test_tiers(r: float, s: float, name: str, failing: str) -> None:
    verdict = scores.tier(scores.scores(*make(r, s)))
    assert verdict["name"] == name
    assert failing in "; ".join(verdict["failed"])


def test_constant_labels_reach_no_tier() -> None:
    found = scores.tier(scores.scores(np.full(20, 0.5), np.linspace(0.2, 0.4, 20)))
    assert found["name"] == "none"
    assert "RMSE/std(label) nan, needs under 0.725" in found["failed"]


def test_tiers_do_not_depend_on_the_unit() -> None:
    for std in (0.483, 12.0, 0.01):
        assert scores.tier(scores.scores(*make(0.93, 0.97, std=std)))["name"] == "excellent"


def test_the_relative_limits_are_the_absolute_ones_over_the_originals_target() -> None:
    for name, limits in scores.ABSOLUTE_LIMITS.items():
        for key, limit in limits.items():
            relative = scores.TIERS[name][{"pred_spread": "spread"}.get(key, key)]
            scale = scores.SEED_SPREAD if key == "pred_spread" else scores.SEED_STD
            assert relative == pytest.approx(limit / scale, abs=6e-4)


def test_acceptance() -> None:
    good = scores.scores(*make(0.8, 0.9))
    rising = [{"val_variance_ratio": v} for v in (0.2, 0.5, 0.6, 0.1, 0.1)]
    falling = [{"val_variance_ratio": v} for v in (0.6, 0.5, 0.4, 0.3, 0.2)]
    assert scores.phase3(good, rising, best_epoch=2)["passed"]
    assert "rank correlation" in scores.phase3(good, falling, best_epoch=None)["failed"][0]
    failed = scores.phase3(scores.scores(*make(0.1, 0.03, bias=0.2)), rising, 2)["failed"]
    assert [text.split()[0] for text in failed] == ["R²", "s", "spread/spread(label)"]


def test_few_epochs_are_not_judged() -> None:
    short = [{"val_variance_ratio": v} for v in (0.6, 0.5)]
    found = scores.phase3(scores.scores(*make(0.8, 0.9)), short, best_epoch=0)
    assert (found["passed"], found["failed"]) == (None, [])


def test_a_score_and_its_limit_never_look_alike() -> None:
    found = scores.scores(*make(0.9, 0.97))
    found = {**found, "r2": 0.8, "correlation": 0.9, "rmse": 0.51803 * found["target_std"]}
    assert scores.tier(found)["failed"] == ["RMSE/std(label) 0.51803, needs under 0.518"]
    same = {**found, "rmse": 0.518, "target_std": 1.0}
    assert scores.tier(same)["failed"] == ["RMSE/std(label) 0.518, needs under 0.518"]


def test_the_rank_correlation_is_spearmans() -> None:
    assert scores.rank_correlation(np.arange(4), np.array([1.0, 5, 6, 100])) == pytest.approx(1.0)
    assert np.isnan(scores.rank_correlation(np.arange(1), np.array([1.0])))
    assert np.isnan(scores.rank_correlation(np.arange(4), np.ones(4)))


def test_blocks_end_at_their_length_at_gaps_and_at_flights() -> None:
    time_s = np.array([0.0, 50, 130, 131, 132, 133])
    flight, piece = np.array([0, 0, 0, 0, 0, 1]), np.array([0, 0, 0, 0, 1, 0])
    assert independence.block_ids(time_s, flight, piece, 120.0).tolist() == [0, 0, 1, 1, 2, 3]


def test_the_interval_widens_where_samples_are_copies() -> None:
    t, p = make(0.8, 0.8, n=200)
    copies = np.repeat(np.arange(200), 10)
    alone = scores.bootstrap(t[copies], p[copies], np.arange(2000), 400, 0)["r2"]
    blocked = scores.bootstrap(t[copies], p[copies], copies, 400, 0)["r2"]
    plain = scores.bootstrap(t, p, np.arange(200), 400, 0)["r2"]
    assert np.ptp(alone) < 0.5 * np.ptp(blocked)
    assert np.ptp(blocked) == pytest.approx(np.ptp(plain), rel=0.2)
    low, high = blocked
    assert low < scores.scores(t, p)["r2"] < high


def test_the_effective_size_of_an_autoregressive_series() -> None:
    n, phi = 20_000, 0.8
    x = np.zeros(n)
    for i, e in enumerate(RNG.normal(size=n)):
        x[i] = phi * x[i - 1] + e
    found = independence.effective_size(x, np.zeros(n))
    assert found == pytest.approx(n * (1 - phi) / (1 + phi), rel=0.15)
    assert independence.effective_size(RNG.normal(size=n), np.zeros(n)) > 0.9 * n


# --- how scores are shown


def test_a_score_has_one_label_and_one_form() -> None:
    s, bias = scores.COLUMNS["variance_ratio"], scores.COLUMNS["bias"]
    assert (s.label, s.text(0.6634), s.text(None), s.text(float("nan"))) == ("s", "66.3 %", "-", "-")
    assert s.with_std({"mean": 0.6634, "std": 0.02}) == "66.3 ± 2.0 %"
    assert s.with_std({"mean": None, "std": None}) == "-"
    assert s.interval([0.61, 0.72]) == " [61.0, 72.0]"
    assert s.interval([None, 0.72]) == " [-, 72.0]"
    assert s.interval(None) == ""
    assert (bias.text(0.1), bias.with_std({"mean": 0.1, "std": 0.2})) == ("+0.100", "0.100 ± 0.200")
    found = scores.scores(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert set(scores.COLUMNS) <= set(found)
    assert scores.texts(found, ("r2", "rmse")) == ["0.786", "0.577"]


def test_s_has_one_name_and_every_table_that_shows_it_says_what_it_is() -> None:
    """The old names stand in no text that people see; they are keys of JSON files and names of logs alone."""
    root = Path(scores.__file__).parents[1]
    tables = 0
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.name == "metrics.py" or not re.search(r"\b(std|[vV]ariance) [rR]atio\b", text), path
        shows = "labels(" in text and "def labels" not in text and "variance_ratio" in text and "table(" in text
        tables += shows
        assert not shows or "S_IS" in text or "IDENTITY" in text, path
    assert tables > 3
