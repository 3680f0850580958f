"""The evidence of a diagnosis: plain numbers from a run's results, history and configuration.

The scores of every split are analysed by the identity R² = r² - (s-r)² - b², b = bias/std(t). A run that was cut off
has no scores; its best epoch in the history replaces them, with a guessed effective size.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

from cloudml_tf.config.schema import Config
from cloudml_tf.diagnostics.between_flights import Seen
from cloudml_tf.evaluation.scores import TIERS
from cloudml_tf.nn.sightlines import ALTITUDE, FORWARD

HELD_OUT = ("val", "test")
GUESSED_EFFECTIVE = 0.5  # n_eff / n of a run that was never evaluated
CLEAR_R = 0.2  # r² below 4 % is of no use, whatever its significance
OVERFIT = 0.2  # r of training minus r of the held-out splits
SHRUNK, FAR_UNDER = 0.4, 2 / 3  # s of the reference recipe's acceptance; and s over r, where r²/9 of R² is lost
LOST = 0.2  # of r, on one flight
SHIFTED = 0.2  # of R², that a straight line through a flight's predictions would give back
USUAL_WIND_ERROR, CLEARLY = 1.0, 3.0  # m/s, of a forecast; times that error, which wind must be wrong to be blamed


@dataclass(frozen=True)
class Part:
    """The scores of one predictor on one split. An undefined correlation, of constant predictions, counts as 0."""

    n: int
    n_eff: float
    r2: float
    r: float
    s: float
    b: float  # bias / std(t)
    r2_error: float
    s_error: float

    @classmethod
    def of(cls, found: dict[str, Any]) -> "Part":
        """Read scores as returned by `evaluation.scores.scores_with_intervals`, or stored in metrics.json."""
        n_eff = max(float(found.get("n_eff", GUESSED_EFFECTIVE * found["n"])), 1.0)
        s, r = plain(found["variance_ratio"]), plain(found["correlation"])
        ci95 = found.get("ci95", {})
        return cls(
            n=int(found["n"]),
            n_eff=n_eff,
            r2=plain(found["r2"], -math.inf),
            r=r,
            s=s,
            b=plain(found["bias"]) / (plain(found["target_std"], 1.0) or 1.0),
            r2_error=_half_width(ci95.get("r2"), 2 * abs(r) * (1 - r * r) / math.sqrt(n_eff)),
            s_error=_half_width(ci95.get("variance_ratio"), s / math.sqrt(2 * n_eff)),
        )

    @property
    def r_error(self) -> float:
        """The standard error of r."""
        return (1 - self.r**2) / math.sqrt(max(self.n_eff - 3, 1))

    @property
    def b_error(self) -> float:
        """The standard error of b: that of the mean of the residuals."""
        return math.sqrt(max(1 + self.s**2 - 2 * self.r * self.s, 0) / self.n_eff)

    @property
    def gap(self) -> float:
        """s - r: below 0 spread is lost, above it is noise."""
        return self.s - self.r

    @property
    def gap_error(self) -> float:
        """The standard error of s - r."""
        return math.hypot(self.s_error, self.r_error)

    def __str__(self) -> str:
        return f"R² {self.r2:.2f}, r {self.r:.2f}, s {self.s:.2f}, bias {self.b:+.2f} std"


def pooled(parts: list[Part]) -> tuple[float, float]:
    """The correlation of several splits together, and its standard error (Fisher's z, weighted by n_eff)."""
    weights = [max(part.n_eff - 3, 1.0) for part in parts]
    z = sum(w * math.atanh(min(max(p.r, -0.9999), 0.9999)) for w, p in zip(weights, parts, strict=True))
    r = math.tanh(z / sum(weights))
    return r, (1 - r * r) / math.sqrt(sum(weights))


@dataclass(frozen=True)
class ClockFault:
    """A wrong lidar clock: `offset_s` must be added to data.lidar.time_offset_s."""

    flights: tuple[str, ...]
    every_flight: bool
    offset_s: float
    r: float  # of labels and nadir brightness as configured
    best_r: float  # and with the offset
    or_pixels: int = 0  # a boresight offset along track that would explain as much


@dataclass(frozen=True)
class Attitude:
    """How restless frames are, in pixels, once motion, wind and attitude are taken out at the heights of the labels.

    Median over labels and frames, less each flight's own median; `gain` is the mean by which another attitude calms
    them, and its standard error.
    """

    angle: str  # "roll" or "pitch"
    recorded: bool  # whether it varies in the files
    restless_px: float
    other_px: dict[str, float]  # with its sign "turned", and taken as "level"
    gain: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Parallax:
    """What the frames of the training show of heights that are known."""

    px_per_km: float  # by which 1 km of height moves a cloud between the outermost frames; 0 without a geometry
    why: str = ""  # it is 0
    followed: float = 0.0  # share of labels that other frames show where their height puts them
    km_per_m_s: float = 0.0  # of height for each m/s of wind along the track
    calm: tuple[str, ...] = ()  # flights without a wind
    drift_m_s: dict[str, float] = field(default_factory=dict)  # by flight, to the right, that the wind does not explain
    attitude: tuple[Attitude, ...] = ()


@dataclass(frozen=True)
class Within:
    """Scores of the flights of a split together, each less its own means."""

    n_eff: float
    r: float
    r2: float

    @property
    def error(self) -> float:
        """The standard error of r."""
        return (1 - self.r**2) / math.sqrt(max(self.n_eff - 3, 1))


@dataclass(frozen=True)
class Probes:
    """Results that need the flights themselves. Each is None where it was not measured."""

    clock: tuple[ClockFault, ...] = ()
    brightness: tuple[float, float] | None = None  # |r| of label and nadir brightness within flights, standard error
    baselines: dict[str, Any] | None = None  # as in metrics.json, for a run that has none
    blocks_apart: dict[str, tuple[float, float]] | None = None  # validation R² with and without a label's own flight
    shared_labels: dict[str, float] = field(default_factory=dict)  # split -> share of labels that training has too
    label_memory_s: float = 0.0  # how far apart labels must be to be independent
    parallax: Parallax | None = None  # of a height
    moved: dict[str, float] = field(default_factory=dict)  # what was spoilt -> change of the predictions over their std
    flights: dict[str, Seen] = field(default_factory=dict)  # each flight's labels and brightness beside the others'
    frozen: dict[str, tuple[float, str]] = field(default_factory=dict)  # share of frozen frames, and words, by flight
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """Everything that the rules use."""

    config: Config
    description: dict[str, Any]  # data.json
    history: list[dict[str, float]]
    parts: dict[str, Part]  # train, val, test; held_out where the run was evaluated on other flights
    baselines: dict[str, dict[str, Part]]
    finished: bool
    collapsed: bool
    tier: str
    probes: Probes
    per_flight: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # split -> flight -> scores

    @classmethod
    def of(
        cls,
        metrics: dict[str, Any] | None,
        history: list[dict[str, float]],
        config: Config,
        description: dict[str, Any],
        probes: Probes | None = None,
        evaluation: dict[str, Any] | None = None,
    ) -> "Evidence":
        """Collect the evidence of a run; `metrics` is None for one that was cut off, `evaluation` is of other
        flights."""
        probes = probes or Probes()
        scores = _parts_of_history(history, description) if metrics is None else metrics
        parts = {name: Part.of(scores[name]) for name in ("train", *HELD_OUT) if name in scores}
        if evaluation is not None:
            parts["held_out"] = Part.of(evaluation["test"])
        references = (metrics or {}).get("baselines") or probes.baselines or {}
        others = {name: by_part for name, by_part in references.items() if name != "mean"}
        baselines = {name: {p: Part.of(found) for p, found in by_part.items()} for name, by_part in others.items()}
        found = (metrics or {}).get("training", {})
        collapsed = found.get("collapsed", _collapsed(history, config))
        reached = _tier_of(parts.get("val")) if metrics is None else metrics["tier"]["name"]
        flights = (metrics or {}).get("per_flight", {})
        whole = metrics is not None
        return cls(config, description, history, parts, baselines, whole, collapsed, reached, probes, flights)

    @property
    def train(self) -> Part | None:
        """The split that the network was trained on; None where nothing is known of it."""
        return self.parts.get("train")

    @property
    def held_out(self) -> list[Part]:
        """The splits that the network was not trained on."""
        return [self.parts[name] for name in HELD_OUT if name in self.parts]

    @property
    def not_finite(self) -> bool:
        """Whether the training ended on a loss that is not finite."""
        return bool(self.history) and not math.isfinite(self.history[-1].get("loss", 0.0))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return max(self.description["split"]["train"]["sequences"] // self.config.training.batch_size, 1)

    @property
    def travel(self) -> float:
        """Σ learning rate over all steps: Adam moves a weight by about the rate a step, so none can have gone further.

        Weights start at about 0.1 to 0.3. The history has the rate of each epoch's last step.
        """
        rates = [0.0, *(row.get("learning_rate", self.config.training.learning_rate) for row in self.history)]
        return self.steps_per_epoch * sum(0.5 * (a + b) for a, b in itertools.pairwise(rates))

    def within(self, *names: str) -> Within | None:
        """The scores within flights of these splits together; None where single flights were not scored."""
        flights = [found for name in names for found in self.per_flight.get(name, {}).values()]
        if not flights:
            return None
        n, std, s, r = (
            [plain(found[key]) for found in flights] for key in ("n", "target_std", "variance_ratio", "correlation")
        )
        of_label = [k * t * t for k, t in zip(n, std, strict=True)]  # sums of squares within flights
        both = sum(q * a * b for q, a, b in zip(of_label, s, r, strict=True))
        of_answer = sum(q * a * a for q, a in zip(of_label, s, strict=True))
        if sum(of_label) <= 0:
            return None
        effective = sum(self.parts[name].n_eff for name in names if name in self.parts)
        correlation = both / math.sqrt(sum(of_label) * of_answer) if of_answer > 0 else 0.0
        return Within(effective, correlation, (2 * both - of_answer) / sum(of_label))

    @property
    def wind_error_m_s(self) -> float:
        """How wrong the wind has to be for a fault: several times what a forecast, or this one, is wrong by."""
        geometry = self.config.data.geometry
        given = None if geometry is None else geometry.wind_error_m_s
        return CLEARLY * max(given or 0.0, USUAL_WIND_ERROR)

    @property
    def km_per_m_s(self) -> float | None:
        """The km of height that look like 1 m/s of wind along the track; None without a geometry."""
        ranges = (self.description.get("ranges") or {}).get("geometry")
        if self.probes.parallax is not None and self.probes.parallax.km_per_m_s:
            return self.probes.parallax.km_per_m_s
        if not ranges:
            return None
        altitude, forward = (0.5 * (ranges[c - 1]["low"] + ranges[c - 1]["high"]) for c in (ALTITUDE, FORWARD))
        return (altitude - self.description["split"]["train"]["label_mean"]) / forward

    def shifts_km(self, part: str) -> dict[str, float]:
        """The bias of each flight of a split, km; empty where single flights were not scored, or not in km."""
        known = self.config.target.quantity.is_height and self.config.target.transform == "none"
        found = self.per_flight.get(part, {}) if known else {}
        return {flight: plain(scores["bias"]) for flight, scores in found.items()}

    @property
    def reads_heights(self) -> bool:
        """Whether a network of heights follows them within flights, and no flight is off by more than wind can do."""
        held, each = self.within(*HELD_OUT), self.km_per_m_s
        if not self.config.model.sees_heights or held is None or each is None or self.shrunk:
            return False
        shifts = [abs(km) for part in HELD_OUT for km in self.shifts_km(part).values()]
        return held.r2 > TIERS["minimum"]["r2"] and bool(shifts) and max(shifts) <= self.wind_error_m_s * each

    def references(self) -> dict[str, tuple[float, float]]:
        """Correlations reached from the data, each as (r, standard error): every baseline on the held-out splits
        together, the network itself, and plain brightness."""
        seen = {name: [by_part[p] for p in HELD_OUT if p in by_part] for name, by_part in self.baselines.items()}
        found = {name: pooled(parts) for name, parts in seen.items()}
        if self.held_out:
            found["network"] = pooled(self.held_out)
        if self.probes.brightness is not None:
            found["nadir brightness"] = self.probes.brightness
        return found

    @property
    def signal(self) -> bool:
        """Whether some predictor reads the label beyond doubt."""
        return any(r > max(CLEAR_R, 3 * error) for r, error in self.references().values())

    @property
    def silence(self) -> bool:
        """Whether a useful correlation can be excluded; the network's failure alone does not prove it."""
        found = self.references()
        independent = [value for name, value in found.items() if name != "network"]
        return bool(independent) and all(r + 2 * error < 0.3 for r, error in found.values())

    @property
    def best_baseline(self) -> tuple[str, float, float]:
        """(name, r, R²) of the baseline with the highest correlation on the held-out splits; R² is their mean."""
        found = [("none", 0.0, -math.inf)]
        for name, by_part in self.baselines.items():
            parts = [by_part[p] for p in HELD_OUT if p in by_part]
            found.append((name, pooled(parts)[0], _mean_r2(parts)))
        return max(found, key=lambda one: one[1])

    @property
    def shrunk(self) -> bool:
        """Whether the predictions have shrunk to the mean: almost no spread, or s far under r beyond doubt."""
        if self.collapsed or not self.held_out:
            return self.collapsed
        r, error = pooled(self.held_out)
        s = sum(part.s for part in self.held_out) / len(self.held_out)
        s_error = math.sqrt(sum(part.s_error**2 for part in self.held_out)) / len(self.held_out)
        low = r - 2 * error
        far = s < 0.5 * low or (s + 2 * s_error < min(low, SHRUNK) and s < FAR_UNDER * r)
        return s < self.config.training.collapse_threshold or (low > CLEAR_R and far)

    @property
    def lost(self) -> list[str]:
        """Held-out splits whose r is far below that of another, beyond doubt: a fault of their flights, not of the
        network."""
        parts = {name: self.parts[name] for name in HELD_OUT if name in self.parts}
        best = max(parts.values(), key=lambda part: part.r, default=None)
        return [
            name
            for name, part in parts.items()
            if best is not None and best.r - part.r > max(LOST, 2 * math.hypot(best.r_error, part.r_error))
        ]

    @property
    def underfit(self) -> bool:
        """Whether the network fits its own training labels worse than a baseline predicts unseen labels."""
        return self.train is not None and self.train.r + 2 * self.train.r_error < self.best_baseline[1]

    @property
    def overfits(self) -> bool:
        """Whether training labels are predicted far better than others."""
        r, error = pooled(self.held_out)
        return self.parts["train"].r - r > OVERFIT + 2 * error

    @property
    def shares_flights(self) -> bool:
        """Whether validation contains flights of the training."""
        split = self.description["split"]
        return bool(set(split["train"]["flights"]) & set(split["val"]["flights"]))

    @property
    def good(self) -> bool:
        """Whether the run is as good as it can be: it reaches a tier, all that the baselines find, or reads heights.

        Baselines of few labels are no measure; there R² must be near the lowest tier's.
        """
        if self.not_finite:
            return False
        if self.tier != "none" or self.reads_heights:
            return True
        if not self.held_out or not self.baselines or self.shrunk or "test" in self.lost or not self.signal:
            return False
        r2 = _mean_r2(self.held_out)
        doubt = max(0.05, sum(part.r2_error for part in self.held_out) / len(self.held_out))
        enough = self.parts["train"].n_eff >= 150 or r2 > TIERS["minimum"]["r2"]
        best = max(_mean_r2([found[p] for p in HELD_OUT if p in found]) for found in self.baselines.values())
        return enough and r2 > 0 and r2 >= best - doubt

    @property
    def healthy(self) -> bool:
        """Whether a `good` run may be called healthy: the test split has to show it.

        There it reaches a tier, or the level of the best baseline with s and R² of some use. A run that is not finished
        has no test, and one that reads heights is judged within flights.
        """
        test = self.parts.get("test")
        if not self.good or not self.finished or self.reads_heights:
            return self.good
        if test is None or self.tier != "none":
            return test is not None
        useful = test.s >= SHRUNK and test.r2 >= TIERS["minimum"]["r2"]
        return useful and test.r2 >= self.best_on_test[1] - max(0.05, test.r2_error)

    @property
    def best_on_test(self) -> tuple[str, float]:
        """(name, R²) of the baseline with the highest R² on the test split."""
        found = [(name, by_part["test"].r2) for name, by_part in self.baselines.items() if "test" in by_part]
        return max(found, key=lambda one: one[1], default=("none", -math.inf))

    @property
    def shifted(self) -> bool:
        """Whether a straight line through the predictions of the test flights would give back much of R²."""
        test = self.parts.get("test")
        return test is not None and test.r > 0 and test.r - 2 * test.r_error > CLEAR_R and test.r**2 - test.r2 > SHIFTED


def _parts_of_history(history: list[dict[str, float]], description: dict[str, Any]) -> dict[str, Any]:
    """Training and validation scores of the best finite epoch, in training standard deviations of the target."""
    rows = [row for row in history if math.isfinite(row.get("val_r2", math.nan))]
    if not rows:
        return {}
    best = max(rows, key=lambda row: row["val_r2"])
    found = {}
    for part, prefix in (("train", ""), ("val", "val_")):
        row = {key: best.get(prefix + key, math.nan) for key in ("r2", "variance_ratio", "correlation", "bias")}
        s = row["variance_ratio"]
        row["target_std"] = best[prefix + "pred_std"] / s if s > 0 else 1.0
        found[part] = {**row, "n": description["split"][part]["sequences"]}
    return found


def _tier_of(val: Part | None) -> str:
    """The tier of a run that was not evaluated, as far as it is known."""
    minimum = TIERS["minimum"]
    reached = val is not None and val.r2 > minimum["r2"] and val.s > minimum["variance_ratio"]
    return "minimum" if reached else "none"


def _collapsed(history: list[dict[str, float]], config: Config) -> bool:
    """Whether `CollapseAbort` would have stopped the run at the last epoch."""
    limits = config.training
    if len(history) <= limits.collapse_grace_epochs:
        return False
    return history[-1].get("val_variance_ratio", math.nan) < limits.collapse_threshold


def _mean_r2(parts: list[Part]) -> float:
    return sum(part.r2 for part in parts) / len(parts)


def plain(value: float | None, otherwise: float = 0.0) -> float:
    """A number, or `otherwise` where it is undefined."""
    return otherwise if value is None or not math.isfinite(value) else float(value)


def _half_width(interval: list[float] | None, otherwise: float) -> float:
    """A standard error from a 95 % interval."""
    if interval is None or not all(end is not None and math.isfinite(end) for end in interval):
        return otherwise
    return (interval[1] - interval[0]) / 3.92
