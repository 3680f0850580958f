"""What a model is, for whoever reads its predictions: its tier, its scores on test flights, and what it was shown."""

from typing import Any

from cloudml_tf.config.coverage import can_set
from cloudml_tf.config.run_folder import WHOLE, ModelRecord, read_json
from cloudml_tf.data.training_ranges import TrainingRanges
from cloudml_tf.evaluation.scores import COLUMNS, number

JUDGED = "judged"  # in cloudml.json: how the run was judged, of metrics.json
UNKNOWN = "not evaluated"
SCORES = ("r2", "variance_ratio", "correlation", "bias", "rmse")


def judged_of(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """The tier, and the scores on the test split with their space, of metrics.json; empty where there are none."""
    if not metrics or "test" not in metrics:
        return {}
    test = {key: metrics["test"].get(key) for key in (*SCORES, "n", "n_eff")}
    tier = metrics.get("tier", {}).get("name", UNKNOWN)
    return {"tier": tier, "space": metrics.get("space", {}).get("loss", ""), "test": test}


def about(record: ModelRecord) -> dict[str, str]:
    """Global attributes of a file of predictions; each is a text that needs no other."""
    if record.export:
        judged = record.export.get(JUDGED, {})
    else:
        path = record.source / WHOLE
        judged = judged_of(read_json(path)) if path.is_file() else {}
    found = {"model_tier": judged.get("tier", UNKNOWN), "model_test_scores": _scores(judged)}
    found["model_test_flights"] = ", ".join(record.description.get("split", {}).get("test", {}).get("flights", []))
    if "ranges" in record.description:
        label = TrainingRanges.from_json(record.description["ranges"]).label
        unit = record.config.target.quantity.unit
        found["training_label_range"] = f"{label.minimum:.3g} to {label.maximum:.3g}" + f" {unit}" * (unit != "1")
    if not can_set(record.config, "data.lidar.clear_sky"):  # labels of a file of scenes
        return found
    shown = record.config.data.lidar.clear_sky == "zero"
    found["clear_sky_in_training"] = "yes, with the label 0" if shown else "no: over clear sky a value means nothing"
    return found


def _scores(judged: dict[str, Any]) -> str:
    """In words: "R² 0.712, s 88.1 %, …, in ln(cod); n = 120, effectively 9"."""
    if not judged:
        return UNKNOWN
    test = judged["test"]
    shown = ", ".join(f"{COLUMNS[key].label} {COLUMNS[key].text(test.get(key))}" for key in SCORES)
    return f"{shown}, in {judged['space']}; n = {test['n']}, effectively {number(test.get('n_eff'), '.0f')}"


def in_a_line(found: dict[str, str]) -> str:
    """The same for the terminal."""
    where = found["model_test_flights"] or "none"
    labels = f"; training labels {found['training_label_range']}" if "training_label_range" in found else ""
    clear = f"; clear sky in training: {found['clear_sky_in_training']}" if "clear_sky_in_training" in found else ""
    return f"model: tier {found['model_tier']}; test ({where}): {found['model_test_scores']}{labels}{clear}"


def without_tier(found: dict[str, str]) -> list[str]:
    """A warning where the model failed on its test flights."""
    if found["model_tier"] != "none":
        return []
    return [
        f"the model reached no tier on its test flights, {found['model_test_flights']}: {found['model_test_scores']}. "
        "Take its values as a trial; `cloudml diagnose` of its run says what to mend, and `cloudml calibrate` corrects "
        "level and scale where a flight has a few labels."
    ]
