"""File formats beside HDF5, each as what `h5py` gives: a file with attributes, and datasets by name.

To add one: a module with a function that opens a path as an `ArrayFile`, and a line in `OPENERS`.
"""

from collections.abc import Callable
from pathlib import Path

from cloudml_tf.data.readers.formats import icartt, netcdf3
from cloudml_tf.data.readers.formats.base import Array, ArrayFile
from cloudml_tf.utils.errors import DataError

__all__ = ["Array", "ArrayFile", "open_other"]

OPENERS: tuple[tuple[Callable[[bytes], bool], Callable[[Path], ArrayFile]], ...] = (
    (netcdf3.begins, netcdf3.open_netcdf3),
    (icartt.begins, icartt.open_icartt),
)
LOOKED_AT = 512  # bytes that tell a format


def open_other(path: Path) -> ArrayFile | None:
    """A file of another format than HDF5, by its first bytes; None for one that is unknown. Raises `DataError`."""
    try:
        with open(path, "rb") as file:
            start = file.read(LOOKED_AT)
        opener = next((opener for begins, opener in OPENERS if begins(start)), None)
        return None if opener is None else opener(path)
    except OSError:
        return None
    except (ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: {error}.") from None
