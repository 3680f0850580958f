"""The runs that nobody kills: what the killed ones must come to, and how long each phase of them takes."""

import json
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from tools import twin

from faulting.killing import Ready, command, timeline

BASE: dict[str, Any] = {
    **twin.BASE,
    "training": {"max_epochs": 10, "batch_size": 4, "learning_rate": 3e-3},
    "evaluation": {"bootstrap_samples": 100},
}
QUICK = {"evaluation": {"bootstrap_samples": 100, "baselines": False}, "output": {"report": False}}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"training": {"early_stopping_patience": 3}},
    "averaged": {
        **QUICK,
        "training": {"ema_momentum": 0.9},
        "augmentation": {"gain_std": 0.05, "noise_std": 0.1, "mirror_along_track": True},
        "loss": {"schedule": "gate", "pooled_batches": 3},
        "overweight": {"factor": 1.5},
    },
    "collapsing": {
        **QUICK,
        "model": {"output_init": 1e-6},
        "loss": {"weight": 0},
        "training": {"learning_rate": 1e-9, "collapse_grace_epochs": 7},
    },
    "track": {**QUICK, "target": {"coverage": "track"}, "training": {"run_length": 4}},
}
SEARCH = {
    "experiment_name": "searched",
    "space": {"loss.weight": [0, 0.5], "model.dropout": {"min": 0.0, "max": 0.3}},
    "tuner": {"kind": "random", "trials": 4, "seed": 1},
}
GRID = {"experiment_name": "grid", "seeds": [1, 2], "rows": {"plain": {}, "five": {"set": {"temporal_frames": 5}}}}
SHORT = {**QUICK, "training": {"max_epochs": 3}, "output": {"report": False, "export": False}}


def laid(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy of `base` with the sections of `changes` laid over it."""
    both = {key: value for key, value in changes.items() if isinstance(value, dict) and key in base}
    return {**base, **changes, **{key: laid(base[key], value) for key, value in both.items()}}


class References:
    """Configurations, finished runs and measured times below `home`, made when they are first asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)

    def content(self, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        """A configuration whose flights are shared and whose exports are its own."""
        places = {"data": {"cache": str(self.home / "cache")}, "output": {"runs": str(self.home / "auto")}}
        return laid(laid(laid(BASE, places), {"experiment_name": name}), changes)

    def config(self, variant: str, place: Path) -> Path:
        """A variant as a file in `place`, where its export goes too."""
        changes = laid(VARIANTS[variant], {"output": {"savedmodels": str(place / "savedmodels")}})
        return _written(place / f"{variant}.json", self.content(variant, changes))

    def search(self) -> Path:
        """The search as a file."""
        return _written(self.home / "search.json", {**SEARCH, "base": self.content("searched", SHORT)})

    def grid(self) -> Path:
        """The grid as a file."""
        return _written(self.home / "grid.json", {**GRID, "base": self.content("grid", SHORT)})

    def training(self, variant: str) -> tuple[Path, dict[str, float]]:
        """The folder of a variant's training, and when it was where, in s."""
        place = self.home / "whole" / variant
        run = place / "run"
        events: dict[str, Ready] = {
            "begun": (run / "config.json").is_file,
            "first epoch": (run / "checkpoint.npz").is_file,
            "fitted": (run / "last.weights.h5").is_file,
            "exporting": lambda: any((place / "savedmodels").glob(".writing-*")),
        }
        times = self._timed(place, events, "train", self.config(variant, place), "--run-dir", run)
        if "epoch" not in times:
            script = Path(__file__).parent / "phases.py"
            words = [sys.executable, str(script), str(self.config(variant, place / "clock")), str(place / "clock/run")]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            times |= json.loads(done.stderr.strip().splitlines()[-1])
            _written(place / "times.json", times)
        return run, times

    def searched(self) -> tuple[Path, dict[str, float]]:
        """The folder of the search, and how long it took."""
        place = self.home / "whole" / "search"
        return place / "run", self._timed(place, {}, "search", self.search(), "--run-dir", place / "run")

    def gridded(self) -> tuple[Path, dict[str, float]]:
        """The folder of the grid, and how long it took."""
        place = self.home / "whole" / "grid"
        words = ("ablate", self.grid(), "--jobs", "1", "--run-dir", place / "run")
        return place / "run", self._timed(place, {}, *words)

    def exported(self) -> tuple[Path, dict[str, float]]:
        """An export of the plain training in two formats, and how long it took."""
        place = self.home / "whole" / "export"
        words = ("export", self.training("plain")[0], "--format", "savedmodel,litert", "-o", place / "model")
        return place / "model", self._timed(place, {}, *words)

    def predicted(self) -> tuple[Path, dict[str, float]]:
        """The answers of the plain training for all flights, and how long they took."""
        place = self.home / "whole" / "predict"
        words = ("predict", self.training("plain")[0], *self.flights, "-o", place / "out")
        return place / "out", self._timed(place, {}, *words)

    @cached_property
    def flights(self) -> list[str]:
        """Of the split."""
        return ["sim01", "sim02", "sim03"]

    def _timed(self, place: Path, events: dict[str, Ready], *words: object) -> dict[str, float]:
        kept = place / "times.json"
        if not kept.is_file():
            for name in ("run", "model", "out", "savedmodels"):  # of a call that was cut off
                shutil.rmtree(place / name, ignore_errors=True)
            _written(kept, timeline(command(*words), place / "log.txt", events))
        found: dict[str, float] = json.loads(kept.read_text())
        return found


def _written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    return path
