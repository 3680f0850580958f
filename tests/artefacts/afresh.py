"""Loads old SavedModels and .keras files in a process that has done nothing else; tests/test_old_artefacts.py runs it.

    python afresh.py HOME OUT.npz

It goes in stages, from TensorFlow alone to all public names of the package, so that one process tells what each needs.
OUT.npz holds the answers, and as JSON under `loaded` the first stage at which a file could be loaded.
"""

import json
import os
import platform
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

STAGES = {
    "keras": "import keras",
    "package": "import cloudml_tf",
    "losses": "import cloudml_tf.losses, cloudml_tf.metrics",
    "builders": "from cloudml_tf import build_regressor, build_swath_network",
    "all": "from cloudml_tf import *",
}
Arrays = dict[str, np.ndarray]


def machine() -> dict[str, str]:
    """What has to be the same for the same bits."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else [f"model name:{platform.processor()}"]
    chip = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))][:2]
    versions = {name: metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"processor": " ".join(chip), "cores": str(os.cpu_count()), **versions}


def below(arrays: Any, name: str) -> Arrays:
    """Those whose names begin with `name`/, without it."""
    return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith(f"{name}/")}


def savedmodels(home: Path) -> Arrays:
    """The answers of both exports, by TensorFlow alone."""
    import tensorflow as tf

    with np.load(home / "expected/savedmodels.npz") as file:
        stored = dict(file)
    found = {}
    for where in sorted({key.partition("puts/")[0].rpartition("/")[0] for key in stored}):
        folder, signature = where.split("/")
        model = tf.saved_model.load(str(home / folder))
        tensors = {name: tf.constant(values) for name, values in below(stored, f"{where}/inputs").items()}
        answers = model.signatures[signature](**tensors)
        found |= {f"{where}/outputs/{name}": answer.numpy() for name, answer in answers.items()}
    assert not [name for name in sys.modules if name.startswith("cloudml_tf")]
    return found


def asked(model: Any, inputs: Arrays, target: np.ndarray | None) -> Arrays:
    """The answers of a network; where it is compiled its scores too, and its answers after a step more."""
    alone = len(inputs) == 1 and "frames" not in inputs
    x = next(iter(inputs.values())) if alone else inputs
    answers = model(x, training=False)
    parts = answers if isinstance(answers, list) else [answers]
    found = {f"outputs/{number}": np.asarray(part) for number, part in enumerate(parts)}
    if target is None:
        return found
    model.run_eagerly = True  # quicker for a single step
    scores = model.test_on_batch(x, target, return_dict=True)
    found["scores"] = np.array([float(scores[key]) for key in sorted(scores)])
    model.train_on_batch(x, target)
    return {**found, "after": np.asarray(model(x, training=False))}


def networks(home: Path) -> Arrays:
    """The answers of each .keras file, and at which stage it could be loaded."""
    with np.load(home / "expected/networks.npz") as file:
        stored = dict(file)
    found: Arrays = {}
    loaded: dict[str, str] = {}
    why: dict[str, str] = {}
    place: dict[str, Any] = {}
    for stage, code in STAGES.items():
        exec(code, place)
        for path in sorted((home / "keras").glob("*.keras")):
            name = path.stem
            if name in loaded:
                continue
            try:
                model = place["keras"].models.load_model(path)
            except (TypeError, ValueError) as error:
                why[name] = str(error)[:1000]
                continue
            loaded[name] = stage
            content = below(stored, name)
            answers = asked(model, below(content, "inputs"), content.get("target"))
            found |= {f"{name}/{key}": values for key, values in answers.items()}
    missing = {name: text for name, text in why.items() if name not in loaded}
    found["loaded"] = np.array(json.dumps({"loaded": loaded, "missing": missing}))
    return found


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    source, out = map(Path, sys.argv[1:])
    answered = savedmodels(source)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
    np.savez(out, **answered, **networks(source))  # type: ignore[arg-type]
