"""Intervals and their scores: by hand, and on drawn flights whose coverage is known."""

import numpy as np
import pytest

from cloudml_tf.evaluation.uncertainty import (
    Band,
    centre,
    coverage_of,
    crps,
    flight_quantile,
    interval_scores,
    left_out,
    quantile_of_quantiles,
    quantile_of_shares,
    spread,
    spread_and_skill,
)


def flat_band(n: int, unit: float = 1.0) -> Band:
    return Band(np.zeros(n), np.zeros(n), np.full(n, unit))


def test_mean_and_spread_by_hand() -> None:
    members = np.array([[1.0, 2.0], [3.0, 2.0]])
    np.testing.assert_allclose(centre(members), [2.0, 2.0])
    np.testing.assert_allclose(spread(members), [2**0.5, 0.0])  # ((1 - 2)² + (3 - 2)²) / (2 - 1) = 2
    np.testing.assert_array_equal(spread(members[:1]), [0.0, 0.0])


def test_a_band_scores_what_it_widens_to() -> None:
    band = Band(np.array([0.0, 1.0]), np.array([2.0, 1.0]), np.array([1.0, 0.5]))
    scores = band.scores(np.array([3.0, 0.0]))
    np.testing.assert_allclose(scores, [1.0, 2.0])  # 3 is 1 above; 0 is 1 below, in units of a half
    low, high = band.widened(1.0)
    np.testing.assert_allclose((low[0], high[0], low[1], high[1]), (-1.0, 3.0, 0.5, 1.5))
    low, high = band.widened(-5.0)  # narrower than nothing is the middle
    np.testing.assert_allclose(low, high)
    np.testing.assert_allclose(low, [1.0, 1.0])


def test_pooling_gives_every_flight_the_same_weight() -> None:
    # Two flights, of 2 and of 8 labels. Weights: 1/4 a label of the first, 1/16 of the second.
    # Sorted errors: eight of 1 (weight 1/2), then 2 (3/4), then 3 (1): 70 % are reached at 2, 76 % at 3.
    scores, flight = np.array([2.0, 3.0] + [1.0] * 8), np.array(["a"] * 2 + ["b"] * 8)
    assert flight_quantile(scores, flight, 0.5) == 1.0
    assert flight_quantile(scores, flight, 0.7) == 2.0
    assert flight_quantile(scores, flight, 0.76) == 3.0


def test_a_guarantee_needs_flights() -> None:
    # With a flight at infinity of weight 1/(K+1), 90 % is reached for K = 9 at the largest error, for K = 8 never.
    rng = np.random.default_rng(0)
    scores, flight = rng.random(900), np.repeat(np.arange(9), 100)
    assert flight_quantile(scores, flight, 0.9, "guaranteed") == scores.max()
    few = flight < 8
    assert flight_quantile(scores[few], flight[few], 0.9, "guaranteed") == np.inf


def test_the_largest_of_the_flights_own_quantiles() -> None:
    # 9 labels 1..9: the 90 % quantile with one more label at infinity is the 9th; 10 times that in the second flight
    scores = np.concatenate([np.arange(1.0, 10.0), 10 * np.arange(1.0, 10.0)])
    assert flight_quantile(scores, np.repeat([0, 1], 9), 0.9, "largest") == 90.0
    assert flight_quantile(scores[:5], np.zeros(5), 0.9, "largest") == np.inf  # five labels cannot say


def drawn(rng: np.random.Generator, flights: int, labels: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Errors of flights whose sizes of error differ by a log-normal factor."""
    size = np.exp(0.3 * rng.standard_normal(flights))
    return (size[:, None] * rng.standard_normal((flights, labels))).ravel(), np.repeat(np.arange(flights), labels)


@pytest.mark.parametrize(("pooling", "low", "high"), [("pooled", 0.88, 0.92), ("guaranteed", 0.90, 0.97)])
def test_mean_coverage_of_further_flights_is_what_is_promised(pooling, low: float, high: float) -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(60):
        errors, flight = drawn(rng, 30)
        q = flight_quantile(np.abs(errors), flight, 0.9, pooling)
        found.append(np.mean(np.abs(drawn(rng, 20)[0]) <= q))
    assert low < np.mean(found) < high


def test_the_largest_covers_a_further_flight_with_the_odds_of_its_rank() -> None:
    rng, whole = np.random.default_rng(2), []
    for _ in range(300):
        errors, flight = drawn(rng, 4)
        q = flight_quantile(np.abs(errors), flight, 0.9, "largest")
        whole.append(np.mean(np.abs(drawn(rng, 1)[0]) <= q) >= 0.9)
    assert 0.74 < np.mean(whole) < 0.92  # 4 of 5, a little more: each quantile is rounded up


def test_frames_of_one_flight_are_no_independent_labels() -> None:
    """Pooling over frames of one flight looks certain and is not: the coverage of others scatters widely."""
    rng, found = np.random.default_rng(3), []
    for _ in range(200):
        errors, flight = drawn(rng, 1, 400)
        found.append(np.mean(np.abs(drawn(rng, 1, 400)[0]) <= flight_quantile(np.abs(errors), flight, 0.9)))
    assert np.std(found) > 0.05  # a binomial count of 400 would have 0.015


def test_each_calibration_flight_by_the_others() -> None:
    target = np.concatenate([np.linspace(-1, 1, 11), np.linspace(-3, 3, 11)])
    flight = np.repeat(["calm", "wild"], 11)
    found = left_out(flat_band(22), target, flight, 0.9, "pooled")
    assert found["calm"] == 1.0
    assert found["wild"] == pytest.approx(3 / 11)  # |-0.6|, 0, |0.6|; the next is 1.2, and 90 % of calm is 1.0
    assert left_out(flat_band(11), target[:11], flight[:11], 0.9, "pooled") == {}


def test_interval_score_by_hand() -> None:
    # One inside [0, 2], one 1 above: widths 2 and 2, and 2/0.1 x 1 for the miss: (2 + 22)/2 = 12
    found = interval_scores(np.array([1.0, 3.0]), np.zeros(2), np.full(2, 2.0), 0.9)
    assert found == pytest.approx({"n": 2, "coverage": 0.5, "width": 2.0, "interval_score": 12.0})
    assert coverage_of(np.array([0.0, 2.0]), np.zeros(2), np.full(2, 2.0)) == 1.0  # the ends belong to it


def test_crps_by_hand() -> None:
    # Members 0 and 2, truth 1: E|X-t| = 1, E|X-X'| = (0 + 2 + 2 + 0)/4 = 1; 1 - 1/2 = 1/2. One member: |0 - 1|
    assert crps(np.array([1.0]), np.array([[0.0], [2.0]])) == pytest.approx(0.5)
    assert crps(np.array([1.0]), np.array([[0.0]])) == pytest.approx(1.0)


def test_spread_and_skill_in_bins_of_equal_number() -> None:
    between = np.array([3.0, 1.0, 1.0, 3.0])
    x, y = spread_and_skill(between, np.array([6.0, 0.0, 2.0, 8.0]), bins=2)
    np.testing.assert_allclose(x, [1.0, 3.0])
    np.testing.assert_allclose(y, [2**0.5, 50**0.5])


def test_quantiles_of_heads_by_hand() -> None:
    # Bins [0,1) and [1,2) with shares 1/4, 3/4: a tenth of the weight lies below 0.4, a half below 1 + 1/3
    shares = np.array([[0.25, 0.75]])
    assert quantile_of_shares(shares, 0.1, 0.0, 2.0)[0] == pytest.approx(0.4)
    assert quantile_of_shares(shares, 0.5, 0.0, 2.0)[0] == pytest.approx(1 + 1 / 3)
    quantiles, levels = np.array([[1.0, 3.0]]), np.array([0.25, 0.75])
    assert quantile_of_quantiles(quantiles, 0.5, levels)[0] == pytest.approx(2.0)
    assert quantile_of_quantiles(quantiles, 0.05, levels)[0] == 1.0  # the end, beyond it
