"""Two replicas against one device, form by form: `python benchmarks/replicas.py`.

A small network answers one batch: on one device with the loss as Keras calls it, and on replicas (parts of the CPU)
that hold a share of the batch each, as `cloudml train` shares it out. For each form of the loss: the relative
difference of the loss and of the gradient of all weights, in float32, with the term taken over the whole batch (ours)
and, for comparison, over each replica's share (naive). Ends with 1 where ours is above the bar of 1e-5.
"""

import argparse
import json
import sys
from typing import Any, NamedTuple

import numpy as np

from cloudml_tf.utils.tf_logging import quiet_tensorflow

BAR = 1e-5
FEATURES, PLACES, QUANTILES, BINS = 8, 3, 9, 16
CLIP = 0.5  # the penalty of the batch is above, that of one of its halves below


class Case(NamedTuple):
    """A loss, and the batch that it is given."""

    options: dict[str, Any]
    head: str = "point"
    weighted: bool = False
    places: int = 1
    size: int = 32  # samples of the batch
    batches: int = 1  # that come before and with it: pooled moments remember


def cases() -> dict[str, Case]:
    """Every form with both target variances, and what else a loss may have."""
    from cloudml_tf.losses import FORMS

    found = {}
    for form in FORMS:
        for variance in ("batch", 1.0):
            found[f"{form}, {'batch' if variance == 'batch' else 'fixed'} variance"] = Case(
                {"form": form, "target_variance": variance, "gamma": 1.5}
            )
    for base in ("mae", "huber", "mse_mae"):
        found[f"base {base}"] = Case({"base": base})
    return found | {
        "clip, reached by the batch": Case({"form": "log", "target_variance": 1.0, "clip": CLIP}),
        "pooled_batches 3": Case({"pooled_batches": 3}, batches=3),
        "sample weights": Case({}, weighted=True),
        "sample weights, not in the moments": Case({"weighted_moments": False}, weighted=True),
        "places, some without a label": Case({}, weighted=True, places=PLACES),
        "quantile head": Case({}, head="quantile"),
        "histogram head": Case({}, head="histogram"),
        "histogram head, base mse": Case({"base": "mse"}, head="histogram"),
        "shares of unequal size": Case({}, size=31, weighted=True),
        "a share of none": Case({}, size=3),
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    quiet_tensorflow()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it would warn that one step is not worth a graph
    from cloudml_tf.config.training import Training
    from cloudml_tf.train.devices import start

    strategy = start(Training(devices="mirrored", replicas=args.replicas)).strategy
    found = {name: differences(case, strategy) for name, case in cases().items()}
    worst = max(max(one["ours"]) for one in found.values())
    if args.json:
        print(json.dumps({"replicas": args.replicas, "worst": worst, "cases": found}))
    else:
        print(f"{args.replicas} replicas and one device, float32: relative difference of loss and gradient\n")
        print("| | ours: loss | gradient | naive: loss | gradient |\n|---|---|---|---|---|")
        for name, one in found.items():
            print(f"| {name} | " + " | ".join(f"{x:.1e}" for x in (*one["ours"], *one["naive"])) + " |")
        print(f"\nlargest of ours: {worst:.1e}; bar: {BAR:g}")
    sys.exit(worst > BAR)


def differences(case: Case, strategy: Any) -> dict[str, tuple[float, float]]:
    """Of (loss, gradient): ours, and the naive term's."""
    loss, gradient = on_one(case)

    def against(found: tuple[float, np.ndarray]) -> tuple[float, float]:
        apart = float(np.linalg.norm(found[1] - gradient) / np.linalg.norm(gradient))
        return abs(found[0] - loss) / abs(loss), apart

    return {"ours": against(on_replicas(case, strategy, None)), "naive": against(on_replicas(case, strategy, list))}


def drawn(case: Case) -> list[tuple[Any, ...]]:
    """(inputs by name, targets (B,K)[, weights (B,K)]) of each batch; inputs tell something of the targets."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(case.batches):
        x = rng.normal(size=(case.size, FEATURES)).astype("float32")
        target = (x[:, : case.places] + rng.normal(size=(case.size, case.places))).astype("float32")
        weight = rng.choice([0.0, 1.0, 3.0], size=target.shape, p=[0.2, 0.6, 0.2]).astype("float32")
        found.append(({"x": x}, target, weight) if case.weighted else ({"x": x}, target))
    return found


def made(case: Case, across: Any) -> tuple[Any, Any]:
    """The network and the loss; the same weights each time."""
    import keras

    from cloudml_tf.losses import HistogramLoss, QuantileLoss, VariancePreservingLoss
    from cloudml_tf.nn.heads import HistogramHead, QuantileHead

    keras.utils.set_random_seed(2)
    outputs = {"point": case.places, "quantile": QUANTILES, "histogram": BINS}[case.head]
    inputs = keras.Input((FEATURES,), name="x")
    hidden = keras.layers.Dense(16, "tanh")(inputs)
    answer = keras.layers.Dense(outputs)(hidden)
    heads = {"quantile": (QuantileHead, QuantileLoss), "histogram": (HistogramHead, HistogramLoss)}
    head, loss = heads.get(case.head, (None, VariancePreservingLoss))
    model = keras.Model({"x": inputs}, answer if head is None else head()(answer))
    return model, loss(**case.options, across=across)


def on_one(case: Case) -> tuple[float, np.ndarray]:
    """Loss and gradient of the last batch on one device, by Keras's own way to a loss."""
    import tensorflow as tf

    model, loss = made(case, None)
    for inputs, *known in drawn(case):
        with tf.GradientTape() as tape:
            value = loss(known[0], model(inputs, training=True), *known[1:])
        gradients = tape.gradient(value, [variable.value for variable in model.trainable_variables])
    return float(value), np.concatenate([g.numpy().ravel() for g in gradients])


def on_replicas(case: Case, strategy: Any, across: Any) -> tuple[float, np.ndarray]:
    """The same on the replicas of a strategy; `across` is what the loss takes for a sum over them."""
    from cloudml_tf.train.distribute import InStep

    with strategy.scope():
        model, loss = made(case, across)
    in_step = InStep(strategy, model, loss, [], weighted=False)

    def part(share: Any, size: Any) -> Any:
        _, value, _, gradients = in_step.gradients(share, size)
        return [value, *gradients]

    for batch in drawn(case):
        found = strategy.run(part, args=in_step.shared_out(batch))
    value, *gradients = [strategy.reduce("SUM", x, axis=None) for x in found]
    return float(value), np.concatenate([g.numpy().ravel() for g in gradients])


if __name__ == "__main__":
    main()
