"""Short trials before a training: what can be learned from these samples, and by which model?

Baselines on the split as it is, on a random one and on shuffled labels; a ceiling from the labels' own noise; and one
batch that the configured network has to overfit.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cloudml_tf.config.data import FlightFiles
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.frames import Progress
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.scaling import Scaling, TargetScaling
from cloudml_tf.data.splits import PARTS
from cloudml_tf.diagnostics.check.findings import Finding
from cloudml_tf.diagnostics.labels import LabelNoise, label_noise
from cloudml_tf.evaluation import baselines
from cloudml_tf.evaluation.oracle import oracle_predictions
from cloudml_tf.evaluation.scores import TIERS, scores

SHUFFLES = 2
READ = 0.5  # r of a baseline that follows the labels
SHIFTED = 0.2  # of R², that level and scale of the test flights may cost
MOST_ROWS = 10_000  # training samples of a trial
LEAST_SIGNAL, MOST_BY_CHANCE = 0.05, 0.1  # R² on the test split
# What all conditions of a tier together need.
TIER_CORRELATION = {"minimum": 0.69, **{name: TIERS[name]["correlation"] for name in ("good", "excellent")}}


@dataclass(frozen=True)
class Reach:
    """Scores (R², r, s, …) of the baselines on the test split; R² where it is a number alone."""

    given: dict[str, dict[str, float]]
    random_r2: dict[str, float]  # trained and tested on a random split of the same sizes
    shuffled_r2: dict[str, float]  # trained on shuffled labels, the mean of two

    @property
    def best(self) -> tuple[str, dict[str, float]]:
        """The better baseline and its scores."""
        name = max(self.given, key=lambda n: self.given[n]["r2"])
        return name, self.given[name]


def try_baselines(
    parts: Mapping[str, Examples], scaling: TargetScaling, config: Config, progress: Progress | None = None
) -> Reach:
    """Fit the baselines four times; calls `progress(fits done, of all)`."""
    rng = np.random.default_rng(config.seed)
    seen = {part: parts[part].baseline_features(config.preprocessing.log_offset) for part in ("train", "test")}
    kinds = [kind for kind in baselines.MODELS if all(kind in features for features in seen.values())]
    x = {part: {kind: features[kind] for kind in kinds} for part, features in seen.items()}
    z = {part: scaling.standardise(parts[part].label[parts[part].known]) for part in x}
    all_x = {kind: np.concatenate([x[part][kind] for part in x]) for kind in kinds}
    all_z, done = np.concatenate(list(z.values())), iter(range(1, SHUFFLES + 3))

    def scored(
        train: dict[str, np.ndarray], target: np.ndarray, test: dict[str, np.ndarray], truth: np.ndarray
    ) -> dict[str, dict[str, float]]:
        few = rng.permutation(len(target))[:MOST_ROWS]
        found: dict[str, dict[str, float]] = {}
        for kind in kinds:
            models = baselines.fit(train[kind][few], target[few], None, config.seed, kind)
            found |= {name: scores(truth, model.predict(test[kind])) for name, model in models.items()}
        if progress is not None:
            progress(next(done), SHUFFLES + 2)
        return found

    given = scored(x["train"], z["train"], x["test"], z["test"])
    order = rng.permutation(len(all_z))
    train, test = order[: len(z["train"])], order[len(z["train"]) :]
    random = scored(
        {k: v[train] for k, v in all_x.items()}, all_z[train], {k: v[test] for k, v in all_x.items()}, all_z[test]
    )
    shuffled = [scored(x["train"], rng.permutation(z["train"]), x["test"], z["test"]) for _ in range(SHUFFLES)]
    return Reach(
        given,
        {name: found["r2"] for name, found in random.items()},
        {name: float(np.mean([one[name]["r2"] for one in shuffled])) for name in given},
    )


@dataclass(frozen=True)
class Ceiling:
    """An estimate of the R² that no retrieval can exceed, and the corresponding correlation."""

    at_least: float  # r² of the better baseline on the test split
    estimate: float | None  # None where it has no upper bound
    source: str
    noise: LabelNoise | None

    @property
    def out_of_reach(self) -> list[str]:
        """Tiers that need more correlation than the estimate allows."""
        if self.estimate is None:
            return []
        return [name for name, needed in TIER_CORRELATION.items() if self.estimate < needed**2]


def estimate_ceiling(
    parts: Mapping[str, Examples], scaling: TargetScaling, reach: Reach, oracle_r2: float | None
) -> Ceiling:
    """Estimate from the oracle where flights are simulated, else from the labels' noise where it is known.

    The labels of all splits enter with their own noise; a baseline that reaches more proves the estimate too low.
    """
    at_least = float(np.nan_to_num(reach.best[1]["correlation"])) ** 2
    train = parts["train"]
    noise = label_noise(train, scaling.transform(train.label)) if train.label.ndim == 1 else None
    if oracle_r2 is not None:
        return Ceiling(at_least, max(oracle_r2, at_least), "the oracle, which knows the simulated cloud", noise)
    if noise is not None and noise.share is not None and 1.0 - noise.share >= at_least:
        return Ceiling(at_least, 1.0 - noise.share, "the noise of neighbouring labels", noise)
    return Ceiling(
        at_least, None, "the better baseline alone: the labels are too far apart to estimate their noise", noise
    )


def oracle_r2(
    parts: Mapping[str, Examples], flights: dict[str, FlightFiles], scaling: TargetScaling, config: Config
) -> float | None:
    """r² of the oracle on the test split; None without truth."""
    found = oracle_predictions({part: parts[part] for part in PARTS}, flights, scaling, config)
    if found is None:
        return None
    return scores(scaling.standardise(parts["test"].label), found["test"])["r2_ceiling"]


@dataclass(frozen=True)
class Probe:
    """How well the configured network overfits one batch."""

    samples: int
    steps: int
    seconds: float
    r2: float  # the best of all steps
    finished: bool  # all steps were taken, or the goal was reached, before time ran out


PROBE_STEPS, PROBE_SECONDS = 600, 30.0
PROBE_GOAL, PROBE_PASS = 0.95, 0.8  # R² at which the probe stops, and passes


def learn_one_batch(train: Examples, scaling: Scaling, config: Config, progress: Progress | None = None) -> Probe:
    """Train the configured network, without dropout and augmentation and at a constant rate, on one batch."""
    from cloudml_tf.utils.tf_logging import quiet_tensorflow

    quiet_tensorflow()
    import keras

    from cloudml_tf.train import network
    from cloudml_tf.train.batches import point_values, probed
    from cloudml_tf.train.loaders import learned

    plain = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.0, "head_dropout": None})})
    network.start_keras(plain)
    model = network.make_model(plain, scaling, **train.geometry)
    chosen = probed(len(train), train.frame_shape)
    batch, inputs = train.take(chosen), train.inputs(chosen)
    target = np.where(batch.known, scaling.target.standardise(batch.label), 0.0).astype("float32")
    fitted, weight = learned(batch, scaling)
    optimizer = keras.optimizers.Adam(config.training.learning_rate, global_clipnorm=config.training.gradient_clip_norm)
    model.compile(optimizer=optimizer, loss=network.make_loss(plain))
    best, started, step = -np.inf, time.perf_counter(), 0
    while step < PROBE_STEPS and best < PROBE_GOAL and time.perf_counter() - started < PROBE_SECONDS:
        model.train_on_batch(inputs, fitted, sample_weight=weight)
        step += 1
        if step % 20 == 0:
            output = keras.ops.convert_to_numpy(model(inputs, training=True))
            r2 = scores(target[batch.known], point_values(output, batch)[batch.known])["r2"]
            best = max(best, r2 if np.isfinite(r2) else -np.inf)
            if progress is not None:
                progress(step, PROBE_STEPS)
    done = step >= PROBE_STEPS or best >= PROBE_GOAL
    return Probe(len(chosen), step, time.perf_counter() - started, float(best), done)


# --- what the trials say


def judge_reach(reach: Reach) -> Iterator[Finding]:
    """Is there a signal, what would a random split pretend, and do shuffled labels teach nothing?"""
    name, best = reach.best
    title = name.replace("_", " ")
    given = {n.replace("_", " "): found for n, found in reach.given.items()}
    scored = ", ".join(f"{n} R² {found['r2']:.2f} (r {found['correlation']:.2f})" for n, found in given.items())
    beaten = best["r2"] < LEAST_SIGNAL
    said = f"no baseline beats the mean on the test split: {scored}" if beaten else f"on the test split {scored}"
    yield _level(given, said) or _strength(beaten, said)
    pretended = reach.random_r2[name] - best["r2"]
    evidence = f"{title} R² {reach.random_r2[name]:.2f} on a random split, {best['r2']:.2f} on this one"
    pretends = pretended > 0.1 and reach.random_r2[name] > LEAST_SIGNAL
    said = f"look better by {pretended:.2f}" if pretended >= 0.005 else "look no better"
    yield Finding("note" if pretends else "ok", "random split", f"{evidence}: it would {said}")
    shuffled = ", ".join(f"{n.replace('_', ' ')} {r2:+.2f}" for n, r2 in reach.shuffled_r2.items())
    if max(reach.shuffled_r2.values()) > MOST_BY_CHANCE:
        action = "labels or flights of the test split are known in training; look for copies and shared features"
        yield Finding("problem", "shuffled labels", f"R² on the test split {shuffled}, must be 0 or below", action)
    else:
        yield Finding("ok", "shuffled labels", f"R² on the test split {shuffled}")


def _strength(beaten: bool, evidence: str) -> Finding:
    if not beaten:
        return Finding("ok", "signal", evidence)
    action = "expect no more of a network; check that imagery and lidar saw the same clouds, and the target"
    return Finding("warning", "signal", evidence, action)


def _level(given: Mapping[str, Mapping[str, float]], evidence: str) -> Finding | None:
    """Is r² far over R²? Then the test flights are read, with another level and scale than those of the training."""
    far = {n: found["correlation"] ** 2 - found["r2"] for n, found in given.items() if found["correlation"] > READ}
    name, lost = max(far.items(), key=lambda item: item[1], default=("", 0.0))
    if lost <= SHIFTED:
        return None
    action = (
        "brightness and labels of the test flights go together at another level and scale than in training: look at "
        "gain, exposure and surface there, and at the unit of the labels; `cloudml calibrate` fits level and scale to "
        "a few labels of a flight"
    )
    return Finding("warning", "signal", f"{evidence}; r² of {name} is {lost:.2f} over its R²", action)


def judge_ceiling(ceiling: Ceiling) -> list[Finding]:
    """The estimate, and the tiers that it allows."""
    if ceiling.estimate is None:
        return [Finding("note", "ceiling", f"R² of {ceiling.at_least:.2f} or more is within reach ({ceiling.source})")]
    evidence = f"R² about {ceiling.estimate:.2f} at most, an estimate from {ceiling.source}"
    if not ceiling.out_of_reach:
        return [Finding("ok", "ceiling", f"{evidence}; no tier is out of reach")]
    tiers = ", ".join(f"{t} (r {TIER_CORRELATION[t]})" for t in ceiling.out_of_reach)
    action = "average the labels (data.lidar.match), or evaluate the run by r and the baselines instead of these tiers"
    return [Finding("warning", "ceiling", f"{evidence}; out of reach: {tiers}", action)]


def judge_probe(probe: Probe) -> list[Finding]:
    """Evaluate the overfitting test: a network that cannot overfit one batch cannot learn a data set."""
    evidence = f"R² {probe.r2:.2f} on {probe.samples} sequences after {probe.steps} steps, {probe.seconds:.0f} s"
    if probe.r2 >= PROBE_PASS:
        return [Finding("ok", "overfit one batch", evidence)]
    if not probe.finished:
        return [Finding("note", "overfit one batch", f"{evidence}: time was up")]
    action = "check training.learning_rate, model.widths and preprocessing; the network cannot fit what it sees"
    return [Finding("problem", "overfit one batch", evidence, action)]
