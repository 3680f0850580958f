"""Our streaming R2 against tensorflow-addons' RSquare, on random cases. `make parity` runs both roles:

    cases FILE   in our environment (Keras 3): draw the cases, add our R2 batch by batch, write everything to FILE
    check FILE   in the old one (TensorFlow 2.15, Keras 2): add RSquare over the same batches and compare

RSquare sums in float32 unless told otherwise, as it does in `model.compile(metrics=[RSquare()])`. Where the mean of
the target is many times its standard deviation those sums lose the variance, and RSquare is wrong. So the judge is R²
from the definition in numpy float64, and these must hold within 1e-4 of max(1, |R²|):

    ours   against the truth      all cases
    ours   against RSquare        all cases where RSquare itself is right by the same tolerance; at least 200
    ours   against RSquare asked for float64 sums      all cases
"""

import argparse
import itertools
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

CASES = 500
MUST_REMAIN = 200
TOLERANCE = 1e-4
SEED = 1

WEIGHTS = ("none", "random", "zeros")
PREDICTIONS = ("good", "poor", "constant")


class Case(NamedTuple):
    """n samples of k outputs, in float32 as a model gives them, and where the batches are cut."""

    target: np.ndarray  # (n,k)
    prediction: np.ndarray  # (n,k)
    weight: np.ndarray | None  # (n,)
    cuts: np.ndarray  # (b-1,) increasing, between 1 and n-1

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Target, prediction and weight of each batch, in order."""
        edges = [0, *self.cuts.tolist(), len(self.target)]
        for start, end in itertools.pairwise(edges):
            weight = None if self.weight is None else self.weight[start:end]
            yield self.target[start:end], self.prediction[start:end], weight


# Drawing


def draw_case(rng: np.random.Generator, weights: str, predictions: str) -> Case:
    """A case of one kind of weights and one kind of predictions; all else is random."""
    n = int(np.round(2 * 2500 ** rng.uniform()))  # 2 to 5000, evenly over the orders of magnitude
    k = int(rng.integers(1, 5))
    mean = rng.choice([0.0, 1.0, 10.0, 100.0, 1000.0], size=k) * rng.uniform(0.0, 1.0, size=k)  # 0 to 1000
    std = 10 ** rng.uniform(-0.5, 1.5, size=k)  # 0.3 to 30
    target = mean + std * rng.standard_normal((n, k))

    noise = std * rng.standard_normal((n, k))
    if predictions == "good":
        prediction = target + rng.uniform(0.05, 0.5) * noise
    elif predictions == "poor":
        prediction = mean + rng.uniform(-1.0, 1.0) * std + noise  # knows nothing of the target
    else:
        prediction = np.broadcast_to(mean + rng.uniform(-0.5, 0.5) * std, (n, k))

    weight = None if weights == "none" else rng.uniform(0.1, 3.0, size=n)
    if weight is not None and weights == "zeros":  # at least two samples keep their weight: R² is not defined over one
        weight[rng.permutation(n)[: min(n // 2, n - 2)]] = 0.0

    cuts = np.sort(rng.choice(np.arange(1, n), size=min(n - 1, int(rng.integers(0, 12))), replace=False))
    return Case(
        target.astype("float32"),
        prediction.astype("float32"),
        None if weight is None else weight.astype("float32"),
        cuts,
    )


def our_r2(case: Case) -> np.ndarray:
    """One R2 metric an output. -> (k,)"""
    from cloudml_tf.utils.tf_logging import quiet_tensorflow

    quiet_tensorflow()
    from cloudml_tf.metrics import R2

    metrics = [R2() for _ in range(case.target.shape[1])]
    for target, prediction, weight in case.batches():
        for output, metric in enumerate(metrics):
            metric.update_state(target[:, output], prediction[:, output], sample_weight=weight)
    return np.array([float(metric.result()) for metric in metrics])


def write_cases(path: str) -> None:
    """Draw, score with our metric, save. Plain arrays only: `numpy.load` needs no pickles."""
    rng = np.random.default_rng(SEED)
    arrays: dict[str, Any] = {}
    for i in range(CASES):
        case = draw_case(rng, WEIGHTS[i % 3], PREDICTIONS[i // 3 % 3])
        for name, value in case._asdict().items():
            if value is not None:
                arrays[f"{i}/{name}"] = value
        arrays[f"{i}/ours"] = our_r2(case)
    np.savez(path, **arrays)


# Checking


def read_cases(path: str) -> Iterator[tuple[Case, np.ndarray]]:
    """The cases and our R2 of each."""
    with np.load(path, allow_pickle=False) as arrays:
        for i in range(sum(name.endswith("/ours") for name in arrays.files)):
            parts = {name: arrays[f"{i}/{name}"] for name in Case._fields if f"{i}/{name}" in arrays}
            yield Case(**{"weight": None, **parts}), arrays[f"{i}/ours"]


def true_r2(case: Case) -> np.ndarray:
    """The definition over the whole case, in float64, the mean taken off before squaring. -> (k,)"""
    target, prediction = case.target.astype("float64"), case.prediction.astype("float64")
    weight = np.ones(len(target)) if case.weight is None else case.weight.astype("float64")
    deviation = target - np.average(target, axis=0, weights=weight)
    return 1.0 - weight @ (prediction - target) ** 2 / (weight @ deviation**2)


def addons_r2(case: Case, dtype: str) -> np.ndarray:
    """RSquare with "raw_values", and its "uniform_average" behind. -> (k+1,)"""
    import tensorflow_addons as tfa

    raw = tfa.metrics.RSquare(multioutput="raw_values", dtype=dtype)
    average = tfa.metrics.RSquare(multioutput="uniform_average", dtype=dtype)
    for target, prediction, weight in case.batches():
        weight = None if weight is None else weight[:, None]  # (b,1): it broadcasts no (b,) over the outputs
        for metric in (raw, average):
            metric.update_state(target, prediction, sample_weight=weight)
    return np.append(raw.result().numpy(), average.result().numpy()).astype("float64")


def with_average(values: np.ndarray) -> np.ndarray:
    """(k,) -> (k+1,): the outputs and their mean."""
    return np.append(values, values.mean())


def mean_over_std(case: Case) -> float:
    """How many standard deviations the target lies off zero, for the output where it is most."""
    target = case.target.astype("float64")
    mean = np.average(target, axis=0, weights=case.weight)
    std = np.sqrt(np.average((target - mean) ** 2, axis=0, weights=case.weight))
    return float(np.max(np.abs(mean) / std))


def difference(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> float:
    """Largest |a - b| over max(1, |R²|). NaN stays NaN, and fails."""
    return float(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(truth))))


def check_cases(path: str) -> bool:
    """Print what was compared and how far it is apart. -> whether all that must hold holds"""
    rows = []
    outputs = 0
    for case, ours in read_cases(path):
        truth, ours = with_average(true_r2(case)), with_average(ours)
        addons, addons64 = addons_r2(case, "float32"), addons_r2(case, "float64")
        pairs = ((ours, truth), (addons, truth), (ours, addons), (addons64, truth), (ours, addons64))
        rows.append([mean_over_std(case), *(difference(a, b, truth) for a, b in pairs)])
        outputs += len(truth) - 1
    ratio, ours_truth, addons_truth, ours_addons, addons64_truth, ours_addons64 = np.array(rows).T
    kept = addons_truth <= TOLERANCE  # where float32 sums were enough for RSquare; not where it is NaN

    print(f"{len(rows)} cases, {outputs} outputs. Difference in R² over max(1, |R²|):    median  largest")
    for what, values in (
        ("ours - truth, all cases", ours_truth),
        ("RSquare in float64 - truth, all cases", addons64_truth),
        ("ours - RSquare in float64, all cases", ours_addons64),
        ("RSquare - truth, all cases", addons_truth),
        (f"RSquare - truth, the {kept.sum()} cases kept", addons_truth[kept]),
        (f"ours - RSquare, the {kept.sum()} cases kept", ours_addons[kept]),
    ):
        print(f"  {what:54} {np.median(values):8.1e} {values.max(initial=0.0):8.1e}")
    print(f"{(~kept).sum()} cases left out, where RSquare itself is more than {TOLERANCE:g} off the truth:")
    for low, high in itertools.pairwise([0.0, 1.0, 10.0, 100.0, np.inf]):
        here = (ratio >= low) & (ratio < high)
        print(f"  mean of the target {low:g} to {high:g} standard deviations: {(here & ~kept).sum()} of {here.sum()}")

    passed = bool(
        kept.sum() >= MUST_REMAIN
        and (ours_truth <= TOLERANCE).all()
        and (ours_addons[kept] <= TOLERANCE).all()
        and (ours_addons64 <= TOLERANCE).all()
    )
    print(
        f"parity: {'passed' if passed else 'FAILED'}: ours is within {ours_truth.max():.1e} of the truth and "
        f"{ours_addons64.max():.1e} of RSquare in float64 on {len(rows)} cases, and within "
        f"{ours_addons[kept].max(initial=0.0):.1e} of RSquare on the {kept.sum()} where that is right "
        f"(tolerance {TOLERANCE:g})"
    )
    return passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("cases", "check"))
    parser.add_argument("file", metavar="FILE", help="an .npz")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="tensorflow_addons")  # its end of life; known
    if args.role == "cases":
        write_cases(args.file)
    else:
        sys.exit(0 if check_cases(args.file) else 1)
