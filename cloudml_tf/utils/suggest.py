"""Suggest what a misspelt path may have meant."""

import difflib
from pathlib import Path


def nearest(path: Path, suffix: str | None = None) -> Path | None:
    """The existing folder, or file with a suffix, whose name is nearest to a path that does not exist.

    The search covers the same folder or, where that does not exist either, the folder nearest to it.
    """
    parent = path.parent if path.parent.is_dir() else nearest(path.parent)
    if parent is None:
        return None
    try:
        there = sorted(parent.iterdir())
    except OSError:  # a folder that may not be read gives no hint
        return None
    found = {p.name: p for p in there if (p.is_dir() if suffix is None else p.suffix == suffix)}
    names = [path.name] if path.name in found else difflib.get_close_matches(path.name, found, n=1)
    return found[names[0]] if names else None


def did_you_mean(path: Path, suffix: str | None = None) -> str:
    """The suggestion as the end of a message; empty where nothing is near."""
    found = nearest(path, suffix)
    return f" Did you mean {found}?" if found is not None else ""
