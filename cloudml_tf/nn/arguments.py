"""What counts as a number among the arguments of losses, metrics, callbacks and layers.

Python's numbers, NumPy's, arrays and tensors without axes: each becomes a plain int or float, which JSON can hold. A
bool, a complex number, a text or an array with axes is none.
"""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeGuard, TypeVar

import numpy as np

Given = ParamSpec("Given")
Made = TypeVar("Made")


def as_number(value: Any) -> int | float | None:
    """The plain Python number of a number of any kind; None for what is none."""
    if isinstance(value, bool | np.bool_ | str | bytes | complex) or value is None:
        return None
    if isinstance(value, numbers.Real):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if getattr(value, "shape", None) is None or len(value.shape) != 0:
        return None
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, NotImplementedError, RuntimeError, AttributeError):
        return None  # a symbolic tensor holds no number yet
    if array.shape != () or array.dtype.kind not in "iuf":
        return None
    return int(array) if array.dtype.kind in "iu" else float(array)


def number(owner: str, name: str, value: Any, rule: Callable[[float], bool], expected: str) -> Any:
    """An argument as a plain number. Raises `ValueError` where it is none, is not finite, or breaks the rule.

    Args:
        owner, name: whose argument it is, and its name.
        rule: whether a number is allowed.
        expected: the rule in words, such as "to be above 0".
    """
    found = as_number(value)
    if found is None or not math.isfinite(found):
        expected += ", a finite number"
    elif rule(found):
        return found
    raise ValueError(f"{owner} needs `{name}` {expected}. Received: {name}={value!r}")


def whole(owner: str, name: str, value: Any, least: int, expected: str | None = None) -> int:
    """An argument as a plain whole number of `least` or more; 3.0 is one. Raises `ValueError`."""
    found, rule = as_number(value), expected or f"of {least} or more"
    if found is None or not math.isfinite(found) or found != int(found):
        rule += ", a whole number"
    elif found >= least:
        return int(found)
    raise ValueError(f"{owner} needs `{name}` {rule}. Received: {name}={value!r}")


def is_true(owner: str, name: str, value: Any) -> bool:
    """An argument as a plain bool. Raises `ValueError`."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{owner} needs `{name}` to be True or False. Received: {name}={value!r}")
    return bool(value)


def is_text(value: Any, allowed: Sequence[str]) -> TypeGuard[str]:
    """Whether an argument is one of some words; an array is none, and has no truth value."""
    return isinstance(value, str) and value in allowed


def plain(value: Any) -> Any:
    """NumPy's numbers, alone, in lists or as arrays, as plain numbers and tuples of them; anything else as it is."""
    found = as_number(value)
    if found is not None:
        return found
    if isinstance(value, np.ndarray) and value.ndim:
        return tuple(plain(part) for part in value)
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def with_plain_numbers(build: Callable[Given, Made]) -> Callable[Given, Made]:
    """A decorator of functions that hand their arguments on to Keras, which takes Python's whole numbers only."""

    @functools.wraps(build)
    def built(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        return build(*map(plain, args), **{name: plain(value) for name, value in kwargs.items()})

    return built
