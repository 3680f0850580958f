"""Fields that have a new name. The old one is accepted for one release: in files, in `--set` and in old run folders."""

import json
from typing import Any

RENAMED = {"overweight_factor": "overweight.factor"}  # at the root -> dotted path
NARROWER = {  # name patterns that were defaults
    "lidar": ["CPL_L2_*.hdf5", "CPL_L2_*.h5", "CPL_L2_*.nc"],
    "navigation": ["NAV_*.h5", "*_nav.hdf", "*_nav.h5", "NAV_*.nc", "*_nav.nc"],
}
_WARNED: set[str] = set()


def rename(content: dict[str, Any]) -> None:
    """Move the values of old names to the new ones, in place, where these are free."""
    for old in RENAMED.keys() & content.keys():
        section, name = RENAMED[old].split(".")
        if isinstance(content.setdefault(section, {}), dict) and name not in content[section]:
            content[section] = {**content[section], name: content.pop(old)}


def renamed(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration's dictionary with new names only. Raises `ValueError` where a field has both its names."""
    content = dict(content)
    rename(content)
    for old in RENAMED.keys() & content.keys():
        raise ValueError(f"{old} is the old name of {RENAMED[old]}, and both are given; keep {RENAMED[old]}")
    return content


def of_run_folder(content: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run folder or an export, written by an older version, in the current names.

    In that version `warmup_steps` made `warmup_epochs` unused, and a run that started from another used its full
    learning rate.
    """
    for section, patterns in NARROWER.items():  # a default that names more files by now is still that default
        data = content.get("data")
        if isinstance(data, dict) and isinstance(data.get(section), dict) and data[section].get("files") == patterns:
            del data[section]["files"]
    training = content.get("training")
    if isinstance(training, dict):
        if training.get("warmup_steps") is not None:
            training.pop("warmup_epochs", None)
        if training.get("init_from") is not None:
            training.setdefault("init_from_rate_factor", 1.0)
    return content


def warn_of_old_names(content: dict[str, Any]) -> None:
    """Warn of old names among the keys of a file or of `--set`, at any depth, and of each once a process."""
    for old in RENAMED.keys() - _WARNED:
        if f'"{old}":' in json.dumps(content):
            from cloudml_tf.utils.console import Console

            _WARNED.add(old)
            text = f"{old} is now {RENAMED[old]}; the old name will not be accepted by the next release"
            Console(machine=True).warn(text)  # on stderr, since stdout may be a JSON document
