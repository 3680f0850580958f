"""Handle unusable flights: raise, or skip them and record why (`data.bad_flights`)."""

from collections.abc import Sequence

from cloudml_tf.config.data import FlightSplit, LeaveOneOut, TimeBlocks
from cloudml_tf.config.schema import Config
from cloudml_tf.data.splits import PARTS, flights_needed
from cloudml_tf.utils.errors import DataError, FlightError

LeftOut = dict[str, str]  # flight -> why


def leave_out(error: FlightError, left_out: LeftOut, config: Config) -> None:
    """Record a flight that is left out. Raises the error again unless the configuration says "skip"."""
    if config.data.bad_flights != "skip" or error.flight in left_out:
        raise error
    left_out[error.flight] = str(error)


def flights_left(config: Config, available: Sequence[str], left_out: LeftOut) -> dict[str, list[str]]:
    """The flights of each split, without those that are left out.

    They are left out after the split is made: no flight changes its split because of another. With "skip", a flight of
    the split that does not exist is left out too. Raises `DataError` where a split keeps none.
    """
    known = sorted({*available, *left_out})
    if config.data.bad_flights == "skip":
        for name in sorted(_named(config.split) - set(known)):
            left_out[name] = f"there is no flight '{name}'; the flights are {', '.join(known)}"
        known = sorted({*known, *left_out})
    needed = flights_needed(config.split, known)
    kept = {part: [name for name in needed[part] if name not in left_out] for part in PARTS}
    for part in PARTS:
        if needed[part] and not kept[part]:
            why = "; ".join(f"{name}: {left_out[name]}" for name in needed[part])
            raise DataError(f"the {part} split has no flight left, data.bad_flights 'skip' left out {why}")
    return kept


def of_the_split(config: Config, available: Sequence[str], left_out: LeftOut) -> LeftOut:
    """The left-out flights that some split would have used."""
    needed = flights_needed(config.split, sorted({*available, *left_out}))
    return {name: why for name, why in left_out.items() if any(name in names for names in needed.values())}


def in_words(left_out: LeftOut) -> list[str]:
    """A warning for each flight that is left out."""
    return [f"flight {name} is left out (data.bad_flights): {why}" for name, why in left_out.items()]


def _named(split: FlightSplit | LeaveOneOut | TimeBlocks) -> set[str]:
    if isinstance(split, FlightSplit):
        return {*split.train, *split.val, *split.test}
    if isinstance(split, LeaveOneOut):
        return {split.test, *([split.val] if split.val else [])}
    return set()
