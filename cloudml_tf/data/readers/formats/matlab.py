"""What MATLAB writes into its files of version 7.3, which are HDF5, that looks like numbers and is none."""

import contextlib
from typing import Any

import numpy as np

INTERNAL = ("#refs#", "#subsystem#")  # groups of the contents of cells and objects, under names of no meaning
CLASS, EMPTY, SPARSE = "MATLAB_class", "MATLAB_empty", "MATLAB_sparse"
OTHER = {"char": "a text", "cell": "a cell array", "function_handle": "a function", "struct": "a structure"}


def no_numbers(item: Any) -> str:
    """What a dataset holds instead of numbers, by MATLAB's attributes; "" where they say nothing of the kind.

    A text is stored as the numbers of its letters, and an empty array as its own shape.
    """
    with contextlib.suppress(Exception):  # an attribute that cannot be read is nobody's loss
        attributes = item.attrs
        if CLASS not in attributes:
            return ""
        kind = attributes[CLASS]
        kind = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
        if EMPTY in attributes and np.any(attributes[EMPTY]):
            return f"an empty array of MATLAB's class {kind}"
        return f"{OTHER[kind]} of MATLAB's" if kind in OTHER else ""
    return ""


def is_sparse(group: Any) -> bool:
    """Whether a group is a sparse matrix, whose datasets are its parts."""
    return SPARSE in group.attrs
