"""The model card beside an exported swath network."""

from typing import Any

from cloudml_tf.config.schema import Config
from cloudml_tf.data.scene_preparation import scene_file
from cloudml_tf.evaluation.scores import number
from cloudml_tf.inference.export.card import MEANINGS, PART, files_of, loading, scores_table, table


def swath_card(
    config: Config, description: dict[str, Any], metrics: dict[str, Any] | None, record: dict[str, Any]
) -> str:
    """Markdown; the arguments are those of `card.model_card`."""
    chapters = [
        f"# {config.experiment_name}",
        _predicts(config, record),
        "## Inputs and outputs\n\n" + _signature(config, record),
        "## Trained on\n\n" + _data(description),
        "## Scores on the test scenes\n\n" + _scores(description, metrics),
        "## Limits\n\n" + _limits(config),
        "## Files\n\n" + files_of(record),
        "## Loading\n\n" + loading(config, record),
        "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
    ]
    return "\n\n".join(chapters) + "\n"


def _predicts(config: Config, record: dict[str, Any]) -> str:
    meaning, _ = MEANINGS[config.target.name]
    text = f"Predicts the {meaning}, at every pixel of an image, from that image alone."
    if config.target.transform == "log":
        text += f" It was trained on ln(value + {config.target.log_offset:g}); the answer is the median of the value."
    members = record.get("members")
    text += f" It is the mean of {len(members)} networks." if members else ""
    return text + " Preprocessing is inside: images are raw, the answer is in physical units."


def _signature(config: Config, record: dict[str, Any]) -> str:
    channels = ", ".join(f"`{name}`" for name in scene_file(config).channels)
    step = 2 ** (len(config.model.widths) - 1)
    rows = [
        ["input `frames`", f"(n, row, column, {record['inputs']['frames'][-1]})", "as in the file", channels],
        [f"output `{config.target.name}`", "(n, row, column)", MEANINGS[config.target.name][1], "the prediction"],
    ]
    text = table(["", "shape", "unit", ""], rows)
    return f"{text}\n\nAll are float32; n is any number of images, rows and columns are any multiples of {step}."


def _data(description: dict[str, Any]) -> str:
    rows = [
        [PART.get(part, part), found["sequences"], ", ".join(found["flights"]), f"{found['labels']:,}"]
        for part, found in description["split"].items()
    ]
    return table(["part", "scenes", "their names", "labelled pixels"], rows)


def _scores(description: dict[str, Any], metrics: dict[str, Any] | None) -> str:
    if "test" not in description["split"]:
        return "None: it was trained on all scenes, and none was left to judge it on."
    text = scores_table(metrics)
    if not metrics or "decades" not in metrics:
        return text
    rows = [
        [f"{row['from']:g} to {row['to'] or float('inf'):g}", f"{row['n']:,}", number(row["bias"]), number(row["rmse"])]
        for row in metrics["decades"]["test"]
    ]
    return f"{text}\n\n" + table(["predicted value", "pixels", "bias", "RMSE"], rows)


def _limits(config: Config) -> str:
    scenes = scene_file(config)
    lines = [
        "Light came from the sides, and at the angles, that its scenes had; do not use it under another sun."
        if scenes.sun_axis is None
        else "The sun stood at one angle, and its light came from one side: along the "
        f"{scenes.sun_axis} of the image. Turn images so that it does, and do not use it under another sun.",
        "Not tried on another resolution, surface, camera, gain or view angle than those of its scenes.",
    ]
    if scenes.periodic:
        lines.append("It takes every image as periodic: an image that is not has a border at which it is wrong.")
    return "\n".join(f"- {line}" for line in lines)
