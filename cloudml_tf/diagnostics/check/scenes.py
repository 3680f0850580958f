"""The checks of `cloudml check` on a file of gridded scenes: its splits, and how their labels and images differ."""

from typing import Any

import numpy as np

from cloudml_tf.data import drift
from cloudml_tf.data.prepare import prepare
from cloudml_tf.data.samples import Examples
from cloudml_tf.data.splits import PARTS
from cloudml_tf.diagnostics.check import findings as say
from cloudml_tf.diagnostics.check.findings import Finding
from cloudml_tf.diagnostics.check.survey import Checked, loss_space
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError, DataError

MOST_PIXELS = 50_000  # of a split, whose labels and radiances are compared


def read_scenes(found: Checked, console: Console) -> None:
    """Read the scenes and cut them into splits, as a training does; what stops it is a finding."""
    try:
        with console.progress("reading scenes"):
            found.parts = dict(prepare(found.config).parts)
    except (ConfigError, DataError) as error:
        found.findings.append(Finding("problem", "leak" if str(error).startswith("leak") else "scenes", str(error)))
        return
    found.findings.append(Finding("ok", "leak", "no scene of one split is, pixel by pixel, in another"))


def describe_scenes(found: Checked) -> None:
    """A row for each group of scenes, and what sets the validation and test split apart from training."""
    rows: dict[str, dict[str, Any]] = {}
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # labels in the loss's space, and radiance of the first channel
    for part in PARTS:
        examples = found.parts[part]
        seen[part] = _drawn(examples, found)
        for number in np.unique(examples.group):
            group = examples.take(examples.group == number)
            rows[examples.group_names[number]] = _row(group, *_drawn(group, found), part)
    found.numbers["scenes"] = rows
    n_eff = {part: found.parts[part].effective_size(seen[part][0]) for part in PARTS}
    for part in ("val", "test"):
        for i, what in enumerate(("labels", "radiance")):
            moved = drift.compared(seen[part][i], seen["train"][i], n_eff[part], n_eff["train"])
            found.findings += say.shift(f"{part} split", what, moved)


def _drawn(examples: Examples, found: Checked) -> tuple[np.ndarray, np.ndarray]:
    """Labels (k,) in the loss's space and the radiance (k,) of the first channel at them, of `MOST_PIXELS` at most."""
    label, radiance = examples.label[examples.known], examples.radiance_at_labels()[:, 0]
    chosen = np.linspace(0, len(label) - 1, min(MOST_PIXELS, len(label))).astype(int)
    return loss_space(found.config, label[chosen]), radiance[chosen]


def _row(group: Examples, label: np.ndarray, radiance: np.ndarray, part: str) -> dict[str, Any]:
    return {
        "part": part,
        "scenes": len(group),
        "labels": int(group.known.sum()),
        "mean": float(label.mean()),
        "std": float(label.std()),
        "quantiles_5_50_95": np.quantile(label, [0.05, 0.5, 0.95]).tolist(),
        "radiance": float(radiance.mean()),
    }
