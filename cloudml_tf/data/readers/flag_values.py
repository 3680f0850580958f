"""Flags of a file by their own meanings: codes, bit masks, booleans and texts, as CF and ARM write them."""

import re
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from cloudml_tf.data.readers import hdf5
from cloudml_tf.utils.errors import DataError

BAD = r"bad|invalid|missing|fail|error|unreliable|out of range|not valid|do not use|corrupt|artefact|artifact|unusable"
DOUBTFUL = r"indeterminate|suspect|questionable|doubtful|marginal|caution|low confidence|uncertain"
GOOD = r"good|valid|ok|normal|passed|nominal|best|high (quality|confidence)|no (problem|error|flag)|clean|usable"


@dataclass(frozen=True)
class Flags:
    """The flags of one dataset."""

    codes: np.ndarray  # any shape; NaN where there is none
    by_code: dict[float, str]  # the meaning of each code, in plain words
    by_bit: dict[int, str]  # the meaning of each bit mask

    @property
    def explained(self) -> bool:
        """Whether the file says what its codes mean."""
        return bool(self.by_code or self.by_bit)

    def where(self, pattern: str, never: str = r"(?!)") -> np.ndarray | None:
        """Where a meaning matches `pattern` and not `never`, as bool; None where no meaning does."""
        codes = [code for code, text in self.by_code.items() if _says(text, pattern, never)]
        bits = [bit for bit, text in self.by_bit.items() if _says(text, pattern, never)]
        if not codes and not bits:
            return None
        found: np.ndarray = np.isin(self.codes, codes)
        whole = np.nan_to_num(self.codes).astype("int64")
        for bit in bits:
            found |= (whole & bit) != 0
        return found

    def each(self) -> dict[str, np.ndarray]:
        """Meaning -> where it is raised."""
        whole = np.nan_to_num(self.codes).astype("int64")
        found = {text: self.codes == code for code, text in self.by_code.items()}
        return {**found, **{text: (whole & bit) != 0 for bit, text in self.by_bit.items()}}


def _says(text: str, pattern: str, never: str) -> bool:
    return bool(re.search(pattern, text)) and not re.search(never, text)


def read_flags(file: h5py.File, name: str, field: str) -> Flags:
    """Read a dataset of flags. Raises `DataError` where its values and its meanings do not fit together."""
    item = hdf5.find(file, name)
    if isinstance(item, h5py.Dataset) and item.dtype.kind in "SO":
        return _of_texts(file, item, name)
    if isinstance(item, h5py.Dataset) and item.dtype.kind == "b":
        with hdf5.library(file, name):
            return Flags(np.asarray(item[()]).astype("float64"), {}, {})
    codes = hdf5.read(file, name, (1, 2), field)
    by_code, by_bit = _meanings(file[name])
    return Flags(codes, by_code, by_bit)


def _of_texts(file: h5py.File, item: h5py.Dataset, name: str) -> Flags:
    with hdf5.library(file, name):
        texts = np.asarray(item.asstr()[()] if item.dtype.kind == "O" else np.char.decode(item[()], "utf-8", "replace"))
    words = sorted({plain(text) for text in texts.ravel()})
    code = {text: number for number, text in enumerate(words)}
    codes = np.array([code[plain(text)] for text in texts.ravel()], "float64").reshape(texts.shape)
    return Flags(codes, {float(number): text for text, number in code.items()}, {})


def plain(text: Any) -> str:
    """A meaning in lower case, with single spaces for underscores."""
    return " ".join(re.sub(r"[_\W]+", " ", str(text).lower()).split())


def _meanings(item: h5py.Dataset) -> tuple[dict[float, str], dict[int, str]]:
    """Meanings by code and by bit: CF's flag_values, flag_masks and flag_meanings, and ARM's bit_1_description."""
    texts = [plain(word) for word in _words(item, "flag_meanings")]
    values, masks = (_numbers(item, key) for key in ("flag_values", "flag_masks"))
    for key, given in (("flag_values", values), ("flag_masks", masks)):
        if given and texts and len(given) != len(texts):
            raise DataError(
                f"{item.file.filename}: '{item.name}' has {len(given)} {key} and {len(texts)} flag_meanings; both "
                "must be as many. Fix the file, or set the field that names the dataset to null."
            )
    described = {}
    for number in range(1, 65):
        if text := hdf5.text(item, f"bit_{number}_description"):
            described[1 << (number - 1)] = plain(f"{text} {hdf5.text(item, f'bit_{number}_assessment')}")
    if masks and values:  # CF: a field of several bits, whose value counts
        return {float(value): text for value, text in zip(values, texts, strict=False)}, described
    by_bit = {int(mask): text for mask, text in zip(masks, texts, strict=False)} | described
    if not values and not masks and texts:
        values = [float(number) for number in range(len(texts))]
    return {float(value): text for value, text in zip(values, texts, strict=False)}, by_bit


def _words(item: h5py.Dataset, key: str) -> list[str]:
    """A text attribute of words, or of one text each."""
    with hdf5.library(item, f"{item.name}, attribute {key}"):
        value = item.attrs.get(key)
    if isinstance(value, np.ndarray) and value.size > 1:
        return [text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in value.ravel()]
    return re.split(r"[\s,]+", hdf5.text(item, key).strip()) if value is not None else []


def _numbers(item: h5py.Dataset, key: str) -> list[float]:
    with hdf5.library(item, f"{item.name}, attribute {key}"):
        value = item.attrs.get(key)
    if value is None or isinstance(value, h5py.Empty):
        return []
    given = np.ravel(value)
    if given.dtype.kind in "SUO":  # "0b, 1b, 2b" or "0,1,2"
        given = np.array(re.findall(r"-?\d+", " ".join(map(str, given))), "float64")
    return [float(number) for number in given]
