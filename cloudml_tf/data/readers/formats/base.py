"""A file and its datasets as `h5py` gives them, for formats that are not HDF5. No groups: names have no hierarchy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cloudml_tf.config.data import Limits


class Axis:
    """A dimension of a dataset, with a name and no coordinates of its own."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __len__(self) -> int:
        return 0


class Array:
    """A dataset: `read` is called with what stands in the brackets, and gives an array of its own."""

    def __init__(
        self,
        file: "ArrayFile",
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        read: Callable[[Any], np.ndarray],
        attrs: Mapping[str, Any] | None = None,
        axes: Sequence[str] = (),
    ) -> None:
        self.file, self.name, self.shape, self.dtype = file, f"/{name}", shape, np.dtype(dtype)
        self.attrs, self.chunks, self._read = dict(attrs or {}), None, read
        self.dims = [Axis(name) for name in (axes or [""] * len(shape))]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._read(key)


class ArrayFile:
    """A file that is open for reading."""

    name = "/"

    def __init__(self, filename: str, attrs: Mapping[str, Any]) -> None:
        self.filename, self.attrs, self.limits = filename, dict(attrs), Limits()
        self.arrays: dict[str, Array] = {}
        self.notes: list[str] = []  # what a person should know of the file

    @property
    def file(self) -> "ArrayFile":
        """The file itself, as every part of one names its file."""
        return self

    def add(self, name: str, values: np.ndarray, attrs: Mapping[str, Any] | None = None) -> None:
        """Add a dataset that is in memory."""
        self.arrays[name] = Array(self, name, values.shape, values.dtype, lambda key: np.array(values[key]), attrs)

    def find(self, name: str) -> Array | None:
        """The dataset of a name, None where there is none."""
        return self.arrays.get(name.strip("/"))

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name.strip("/")]

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is open."""
        self.arrays = {}
