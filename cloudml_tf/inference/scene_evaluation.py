"""Score a finished swath model on scenes: the same table, maps and page as after a training."""

from pathlib import Path
from typing import Any

from cloudml_tf.config.run_folder import new_run, read_model
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.evaluation import maps
from cloudml_tf.inference.scene_source import answers_of, find_scenes, scenes_of_run
from cloudml_tf.reports.report import write_html
from cloudml_tf.reports.scene_report import SceneEvidence, draw
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import DataError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.tf_logging import quiet_tensorflow


def evaluate_scenes(
    source: Path, words: list[str], overrides: dict[str, Any], run_dir: str | None, console: Console
) -> tuple[Path, dict[str, Any]]:
    """Judge a run or an export; writes evaluation.json, report.html and the pictures. Returns folder and scores."""
    config, description, record = read_model(source, overrides)
    scenes = find_scenes(words, config, description)
    if scenes.seen.sum() < 2:
        raise DataError(f"the {len(scenes)} scenes have no labels to judge by. Check data.scenes.label and test_label.")
    quiet_tensorflow()
    scaling = Scaling.from_json(description["scaling"]).target
    z = scaling.standardise(answers_of(source, config, description, bool(record))(scenes))
    metrics = maps.judge_parts({"test": scenes}, {"test": z}, scaling, config)
    metrics["model"] = str(source)
    trained = sorted(set(scenes.split_names) & set(description["split"]["train"]["flights"]))
    if trained:
        console.warn(f"scenes {', '.join(trained)}: this model was trained on scenes of that name")
    if config.evaluation.baselines:
        train = scenes_of_run(config, description, "train")
        if train is None:
            console.warn("no baselines, the training scenes cannot be read")
        else:
            metrics["baselines"] = maps.collect_baselines(train, {"test": scenes}, scaling, config)
    folder = new_run(config, run_dir, prefix="evaluation-")
    chapters = draw(folder, metrics, SceneEvidence({"test": scenes}, {"test": z}, scaling))
    details = {"configuration": config.model_dump(mode="json"), "scenes": list(scenes.names)}
    write_html(folder / "report.html", f"{config.experiment_name}: evaluation", metrics, chapters, details)
    write_json(folder / "evaluation.json", metrics)
    return folder, metrics
