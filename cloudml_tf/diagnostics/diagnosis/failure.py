"""A named failure, and the overrides of its remedy."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from cloudml_tf.config.coverage import can_set
from cloudml_tf.config.run_folder import flat
from cloudml_tf.diagnostics.diagnosis.evidence import Evidence


@dataclass(frozen=True)
class Failure:
    """A failure, the evidence for it, its remedy, and the overrides to try."""

    name: str
    evidence: tuple[str, ...]
    remedy: str
    set: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to plain lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def overrides(e: Evidence, **wanted: Any) -> tuple[str, ...]:
    """`key=value` for what differs from the run's configuration and its target can take; `__` stands for a dot."""
    now = flat(e.config.model_dump(mode="json"))
    by_path = {name.replace("__", "."): value for name, value in wanted.items()}
    changed = {path: value for path, value in by_path.items() if now[path] != value and can_set(e.config, path)}
    return tuple(f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in changed.items())


def split_without(e: Evidence, wrong: set[str]) -> tuple[str, ...]:
    """A split by flights that leaves some out; empty where fewer than three are left."""
    old = {part: [n for n in found["flights"] if n not in wrong] for part, found in e.description["split"].items()}
    if e.shares_flights:
        names = sorted({name for names in old.values() for name in names})
        new = {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]}
    else:
        new = old
        for part in ("val", "test"):
            if not new[part] and len(new["train"]) > 1:
                new[part] = [new["train"].pop()]
    if not all(new.values()):
        return ()
    return (f"split={json.dumps({'kind': 'flights', **new})}",)
