"""The model card beside every export: what it predicts, from what, how well, where not, and how to load it."""

from collections.abc import Sequence
from typing import Any

from cloudml_tf.config.coverage import scene_settings
from cloudml_tf.config.schema import Config
from cloudml_tf.config.targets import QUANTITIES
from cloudml_tf.evaluation.scores import COLUMNS, S_IS, labels, number, texts
from cloudml_tf.inference.export import parity
from cloudml_tf.inference.export.formats import FORMATS
from cloudml_tf.nn.sightlines import GEOMETRY

PART = {"train": "training", "val": "validation (stops the training)", "test": "test (never seen)"}


def model_card(
    config: Config, description: dict[str, Any], metrics: dict[str, Any] | None, record: dict[str, Any]
) -> str:
    """The model card as Markdown.

    Args:
        config, description: those of the run (config.json, data.json).
        metrics: scores of the run or ensemble (metrics.json); None where there are none.
        record: the content of cloudml.json: inputs, outputs, formats, parity, versions.
    """
    maps = "nadir" not in description  # a value for every pixel
    limits = _limits_of_maps(config) if maps else _limits(config, description)
    chapters = [
        f"# {config.experiment_name}",
        _predicts(config, record, maps),
        "## Inputs and outputs\n\n" + _signature(config, record, maps),
        "## Trained on\n\n" + _data(config, description),
        f"## Scores on the test {'scenes' if maps else 'flights'}\n\n" + _scores(description, metrics),
        "## Intervals\n\n" + _intervals(config, record, metrics),
        "## Limits\n\n" + limits,
        "## Files\n\n" + files_of(record),
        "## Loading\n\n" + loading(config, record),
        "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
    ]
    return "\n\n".join(chapters) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _predicts(config: Config, record: dict[str, Any], maps: bool) -> str:
    quantity = config.target.quantity
    frames, members = config.temporal_frames, record.get("members")
    spacing = config.frame_spacing_s
    which = "successive camera frames" if spacing is None else f"camera frames {spacing:g} s apart"
    seen = "one camera frame" if frames == 1 else f"{frames} {which}, for the middle one"
    where = "at every pixel of an image" if maps else "straight below the aircraft, as the lidar would have measured it"
    text = f"Predicts the {quantity.meaning}{' in km' * quantity.is_height}, {where}, from {seen}."
    if config.target.transform == "log":
        mean = "the mean of" if config.target.smearing else "the median of"
        offset = f" + {config.target.log_offset:g}" if config.target.log_offset else ""
        text += f" It was trained on ln(value{offset}); the prediction is {mean} the value."
    if members:
        text += f" It is the mean of {len(members)} networks."
    return text + " Preprocessing is inside: inputs are raw, the prediction is in physical units."


def _signature(config: Config, record: dict[str, Any], maps: bool) -> str:
    names = ", ".join(feature.name for feature in config.data.features)
    channels = ", ".join(f"`{name}`" for name in scene_settings(config).channels) if maps else ""
    axes = "row, column, channel" if maps and config.temporal_frames == 1 else "frame, row, column, channel"
    what = {
        "frames": ("as in the files", f"(n, {axes}): {channels or 'radiance or reflectance'}"),
        "sun_angles_deg": ("degrees", "solar zenith; solar azimuth minus heading: (n, frame, angle)"),
        "features": ("as in the files", f"{names}: (n, frame, feature)"),
        "geometry": ("as named", f"{', '.join(GEOMETRY)}: (n, frame, number)"),
    }
    rows = [
        [f"input `{name}`", "(n, " + ", ".join(str(size or "any") for size in shape[1:]) + ")", *what[name]]
        for name, shape in record["inputs"].items()
    ]
    more = {"_spread": "std between the members", "_lower": "lower end of the interval", "_upper": "its upper end"}
    for name in record["outputs"]:
        meaning = next((text for ending, text in more.items() if name.endswith(ending)), "the prediction")
        quantity = QUANTITIES.get(name, config.target.quantity)
        meaning = f"{quantity.long_name}, learned beside it" if name in config.target.further else meaning
        unit = quantity.unit.replace("1", "none")
        rows.append([f"output `{name}`", "(n, row, column)" if maps else "(n, 1)", unit, meaning])
    text = table(["", "shape", "unit", ""], rows) + "\n\nAll are float32; n is any number of "
    if not maps:
        return text + "sequences."
    return text + f"images, rows and columns are any multiples of {2 ** (len(config.model.widths) - 1)}."


def _data(config: Config, description: dict[str, Any]) -> str:
    rows = []
    for part, found in description["split"].items():
        count = f"{found['labels']:,}" if "labels" in found else ""
        labels = count or f"{found['label_mean']:.3f} ± {found['label_std']:.3f}"
        rows.append([PART.get(part, part), ", ".join(found["flights"]), found["sequences"], labels])
    maps = "nadir" not in description
    what = ["scenes", "labelled pixels"] if maps else ["labelled sequences", "label, mean ± std"]
    text = table(["split", "scenes or groups" if maps else "flights", *what], rows)
    if config.training.init_from is not None:
        text += f"\n\nIt started from the run {config.training.init_from}, which had other flights."
    if config.pretraining.enabled:
        text += "\n\nIts frame encoder was pretrained on frames without labels, also of the validation flights."
    return text


def _scores(description: dict[str, Any], metrics: dict[str, Any] | None) -> str:
    """The table of scores; for maps also the bias by decade."""
    if "test" not in description["split"]:
        return "None: it was trained on all examples, and none was left to evaluate it on."
    text = scores_table(metrics)
    if not metrics or "decades" not in metrics:
        return text
    rows = [
        [f"{row['from']:g} to {row['to'] or float('inf'):g}", f"{row['n']:,}", number(row["bias"]), number(row["rmse"])]
        for row in metrics["decades"]["test"]
    ]
    return f"{text}\n\n" + table(["predicted value", "pixels", "bias", "RMSE"], rows)


def scores_table(metrics: dict[str, Any] | None) -> str:
    """The rows that the run printed: baselines, network, oracle; then tier and ceiling."""
    if not metrics or "test" not in metrics:
        return "Not recorded: the run's metrics.json is missing."
    rows = [(name, parts["test"]) for name, parts in metrics.get("baselines", {}).items() if "test" in parts]
    rows.append(("**this model**", metrics["test"]))
    rows += [("oracle (knows the true scene)", metrics["oracle"]["test"])] if "oracle" in metrics else []
    keys = ("variance_ratio", "correlation", "bias", "rmse", "mae")
    r2 = COLUMNS["r2"]
    lines = [
        [name, r2.text(found.get("r2")) + r2.interval((found.get("ci95") or {}).get("r2")), *texts(found, keys)]
        for name, found in rows
    ]
    test, tier = metrics["test"], metrics.get("tier", {})
    text = table(["", f"{r2.label} (95 % interval)", *labels(keys)], lines)
    text += (
        f"\n\nIn {metrics['space']['loss']}; n = {test['n']}, effectively {number(test.get('n_eff'), '.0f')}. r is the "
        f"correlation and {S_IS}; R² = r² - (s - r)² - (bias/std)², so the ceiling of R² is "
        f"r² = {number(test.get('r2_ceiling'))}."
    )
    failed = f" (for {tier['next']}: {'; '.join(tier['failed'])})" if tier.get("failed") else ""
    return f"{text} Tier: {tier.get('name', 'not evaluated')}{failed}."


def _intervals(config: Config, record: dict[str, Any], metrics: dict[str, Any] | None) -> str:
    found = record.get("intervals")
    if not found:
        return (
            "None: the prediction is one number without an uncertainty. `cloudml ensemble` joins several runs and "
            "calibrates intervals."
        )
    words = found.get("words") or [f"{100 * found['level']:.0f} %"]
    name = config.target.name
    return f"`{name}_lower` to `{name}_upper`: " + "; ".join(words) + "."


def _limits(config: Config, description: dict[str, Any]) -> str:
    target, lidar, ranges = config.target, config.data.lidar, description.get("ranges")
    ends = [f"{word} {end:g}" for word, end in (("from", target.minimum), ("to", target.maximum)) if end is not None]
    column = target.quantity.of_column and lidar.opaque_profiles == "drop"
    simulated = config.data.path is None and config.data.flights is None
    lines = [
        (bool(ends), f"Trained on labels {' '.join(ends)} alone: beyond them nothing is known."),
        (lidar.clear_sky == "unlabelled", "Clear sky was left out: over it the prediction means nothing."),
        (column, _opaque(description)),
        (simulated, "Trained and tested on simulated flights; not tried on a real camera."),
        (True, "Not tried on a camera, gain, frame size, altitude, season or surface other than those of its flights."),
        (ranges is None, "The ranges of the training inputs are not recorded: the run is of an older version."),
    ]
    far = description.get("sun_outside_training", [])
    lines += [(True, f"Evaluated under a sun outside the training range: {text}.") for text in far]
    text = "\n".join(f"- {line}" for applies, line in lines if applies)
    if ranges is None:
        return text
    return f"{text}\n\nRanges in training, beyond which nothing is known:\n\n{_ranges(config, ranges)}"


def _opaque(description: dict[str, Any]) -> str:
    """What became of columns that the lidar cannot see through, by the counts of the run."""
    counts = [
        found["profiles opaque"] for found in description.get("counts", {}).values() if "profiles opaque" in found
    ]
    if not counts:
        return "Clouds that the lidar cannot see through were left out where its files mark them."
    if not any(counts):
        return (
            "No column was marked as one that the lidar cannot see through: if there are any, their labels are lower "
            "limits, and were trained on."
        )
    return f"Clouds that the lidar cannot see through were left out: {sum(counts):,} profiles."


def _limits_of_maps(config: Config) -> str:
    scenes = scene_settings(config)
    lines = [
        "The sun had the directions and angles of its scenes; do not use it under another sun."
        if scenes.sun_axis is None
        else "The sun stood at one angle, on one side: along the "
        f"{scenes.sun_axis} of the image. Turn images so that it does, and do not use it under another sun.",
        "Not tried on another resolution, surface, camera, gain or view angle than those of its scenes.",
    ]
    if scenes.periodic:
        lines.append("It takes every image as periodic: an image that is not has a border at which it is wrong.")
    return "\n".join(f"- {line}" for line in lines)


def _ranges(config: Config, ranges: dict[str, Any]) -> str:
    """A table of the training split's ranges, without 0.1 % at either end."""
    named = {f"mean of a frame, channel {n}": part for n, part in enumerate(ranges["radiance"])}
    named["solar zenith, degrees"] = ranges["solar_zenith_deg"]
    named["sun's azimuth from the heading, degrees, mirrored as in training"] = ranges["relative_azimuth_deg"]
    named |= {feature.name: part for feature, part in zip(config.data.features, ranges["features"], strict=True)}
    named[f"label `{config.target.name}`"] = ranges["label"]
    rows = [[name, f"{part['low']:.4g}", f"{part['high']:.4g}"] for name, part in named.items() if part is not None]
    return table(["", "from", "to"], rows)


def files_of(record: dict[str, Any]) -> str:
    """The files beside the card, and how far each is from the Keras model."""
    found = record["parity"]
    return (
        table(parity.COLUMNS, parity.rows_of(found))
        + f"\n\nEach file against the Keras model, on {found['sequences']} sequences {found['source']}; relative to "
        f"the prediction, which counts as {parity.SMALL:g} std of the target at least. An export above "
        f"{parity.FAIL_ABOVE:g} is refused, one above {parity.WARN_ABOVE:g} warned about. `cloudml.json` holds all of "
        "this for machines."
    )


LOADING = {
    "savedmodel": """import tensorflow as tf

model = tf.saved_model.load("{folder}")
answer = model.signatures["serving_default"]({arguments})
print(answer["{output}"].numpy())
""",
    "onnx": """import onnxruntime

model = onnxruntime.InferenceSession("{folder}/model.onnx")
answer = model.run(["{output}"], {{{pairs}}})
print(answer[0])
""",
    "litert": """from ai_edge_litert.interpreter import Interpreter

model = Interpreter(model_path="{folder}/model.tflite")
answer = model.get_signature_runner("serving_default")({arguments})
print(answer["{output}"])
""",
}


def loading(config: Config, record: dict[str, Any]) -> str:
    """Five lines per format; the inputs are NumPy arrays of the names above."""
    names = list(record["inputs"])
    filled = {
        "folder": ".",
        "output": config.target.name,
        "arguments": ", ".join(f"{name}={name}" for name in names),
        "pairs": ", ".join(f'"{name}": {name}' for name in names),
    }
    parts = [
        f"{FORMATS[name].title}:\n\n```python\n{LOADING[name].format(**filled)}```"
        for name in record["parity"]["formats"]
    ]
    return f"From this folder, with float32 arrays {', '.join(f'`{name}`' for name in names)}.\n\n" + "\n\n".join(parts)
