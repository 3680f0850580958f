"""Fields that have a new name. The old one is accepted for one release: in files, in `--set` and in old run folders."""

import copy
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from cloudml_tf.utils.errors import ConfigError

RENAMED = {"overweight_factor": "overweight.factor"}  # at the root -> dotted path


def new_name(key: str) -> str:
    """The dotted path that a field has now."""
    return RENAMED.get(key, key)


def rename(content: dict[str, Any]) -> None:
    """Move the values of old names to the new ones, in place, where these are free."""
    for old, new in RENAMED.items():
        section, name = new.split(".")
        if old in content and isinstance(content.setdefault(section, {}), dict) and name not in content[section]:
            content[section][name] = content.pop(old)


def renamed(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration's dictionary with new names only. Raises `ValueError` where a field has both its names."""
    if RENAMED.keys().isdisjoint(content):
        return content
    content = copy.deepcopy(content)
    rename(content)
    for old in RENAMED.keys() & content.keys():
        raise ValueError(f"{old} is the old name of {RENAMED[old]}, and both are given; keep {RENAMED[old]}")
    return content


def of_run_folder(content: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run folder or an export, written by an older version, in the current names.

    In that version `warmup_steps` made `warmup_epochs` unused, and a run that started from another used its full
    learning rate.
    """
    training = content.get("training")
    if isinstance(training, dict):
        if training.get("warmup_steps") is not None:
            training.pop("warmup_epochs", None)
        if training.get("init_from") is not None:
            training.setdefault("init_from_rate_factor", 1.0)
    return content


def check_names(keys: Iterable[str]) -> None:
    """Warn of old names among the keys of a file or of `--set`. Raises `ConfigError` where --set has both names."""
    given = set(keys)
    for old in sorted(RENAMED.keys() & given):
        if RENAMED[old] in given:
            raise ConfigError(f"--set {old} is the old name of {RENAMED[old]}, and both are set; keep {RENAMED[old]}.")
        _warn(old)


def keys_in(content: Any) -> Iterator[str]:
    """All keys of nested dictionaries and lists."""
    if isinstance(content, dict):
        yield from content
    for part in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from keys_in(part)


@functools.cache
def _warn(old: str) -> None:
    """Once a process; on stderr, since stdout may be a JSON document."""
    from cloudml_tf.utils.console import Console

    Console(machine=True).warn(f"{old} is now {RENAMED[old]}; the old name will not be accepted by the next release")
