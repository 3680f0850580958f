"""What the environment of a process can break: a terminal's encoding, and the drawing backend of a notebook."""

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
from typing import Any

# The names that every matplotlib since 3.8 knows; "inline" and others come with packages that may be absent.
_NAMES = """
    agg cairo gtk3agg gtk3cairo gtk4agg gtk4cairo macosx nbagg pdf pgf ps qt5agg qt5cairo qtagg qtcairo svg template
    tkagg tkcairo webagg wx wxagg wxcairo
"""
BACKENDS = frozenset(_NAMES.split())


def show_what_can_be_shown() -> None:
    """Replace what stdout and stderr cannot encode by "?" instead of raising: no character is worth a training."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape"):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def draw_somewhere() -> None:
    """Replace an MPLBACKEND that matplotlib would refuse at its import by "Agg", on which everything here is drawn.

    A notebook sets its own backend for all processes that it starts, where it may not be installed. Keras imports
    matplotlib too.
    """
    name = os.environ.get("MPLBACKEND")
    if name and "matplotlib" not in sys.modules and not _is_backend(name):
        os.environ["MPLBACKEND"] = "Agg"


def _is_backend(name: str) -> bool:
    if name.lower() in BACKENDS:
        return True
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        if name.startswith("module://"):
            return importlib.util.find_spec(name.removeprefix("module://")) is not None
        found: Any = importlib.metadata.entry_points(group="matplotlib.backend")
        return name in found.names
    return False
