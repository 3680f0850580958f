"""One picture of a camera, PNG, TIFF or JPEG, by Pillow: its channels as they are stored, and when it was taken.

Pillow turns what it has no type for into eight bits, or into other colours, without a word: that is refused here.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.data.readers.formats.dates import moment_in

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
KINDS = ("PNG", "TIFF", "JPEG")
COLOURS = ("red", "green", "blue")
GREY = {"L": "u1", "I;16": "u2", "I;16B": "u2", "I;16L": "u2", "I;16N": "u2", "I": "i4", "F": "f4"}  # mode -> type
BIT_DEPTH, WHITE_IS_ZERO = 258, (262, 0)  # tags of TIFF
EXIF_PART = 0x8769
TAKEN = (  # name, and the tags of a time, of its fraction of a second and of its zone; the best first
    ("DateTimeOriginal", 36867, 37521, 36881),
    ("DateTimeDigitized", 36868, 37522, 36882),
    ("DateTime", 306, 37520, 36880),
)
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


def probe(path: Path, most_mb: float) -> tuple[dict[str, tuple[tuple[int, int], str]], float | None, str]:
    """A picture's channels as name -> (shape, type), the time it was taken, and what says so. Raises `ValueError`."""
    with _named_errors(), _opened(path) as picture:
        width, height = picture.size
        names = _channels(picture)
        if width * height * 4 > most_mb * 2**20:
            raise ValueError(f"has {width} x {height} pixels, more than data.limits.read_mb {most_mb:g} allows")
        kind = str(picture.format)
        if kind in ENDS and ENDS[kind] not in _end(path):
            raise ValueError("is truncated; copy it again")
        # Pillow decodes a whole PNG to look for an EXIF behind its pixels; none writes it there.
        exif = picture.getexif() if kind != "PNG" or "exif" in picture.info else None
        taken, source = (None, "") if exif is None else _taken(exif)
    return {name: ((height, width), dtype) for name, dtype in names.items()}, taken, source


def read(path: Path, name: str) -> np.ndarray:
    """A channel (row, column) of a picture. Raises `ValueError`."""
    with _named_errors(), _opened(path) as picture:
        _channels(picture)
        try:
            values = np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"cannot be decoded ({error}); copy it again") from None
    return values if name == "image" else values[..., COLOURS.index(name)]


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """Turn what a damaged picture makes Pillow raise, which may be anything, into a `ValueError`."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"is damaged ({type(error).__name__}: {str(error)[:120]}); copy it again") from None


def _opened(path: Path) -> Any:
    from PIL import Image

    try:
        return Image.open(path, formats=KINDS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"is no picture that can be read ({str(error)[:120]})") from None


def _channels(picture: Any) -> dict[str, str]:
    """The channels of an open picture and their types. Raises `ValueError` for those that Pillow would change."""
    mode, depth = picture.mode, _bits(picture)
    if getattr(picture, "n_frames", 1) > 1:
        raise ValueError(f"holds {picture.n_frames} images; write one a file")
    if picture.format == "TIFF" and picture.tag_v2.get(WHITE_IS_ZERO[0]) == WHITE_IS_ZERO[1]:
        raise ValueError("counts from white to black (PhotometricInterpretation 0); write it from black to white")
    if mode in GREY and depth in (8, 16, 32) and np.dtype(GREY[mode]).itemsize * 8 >= depth:
        return {"image": GREY[mode]}
    if mode in ("RGB", "RGBA") and depth == 8:  # what is transparent is left out
        return dict.fromkeys(COLOURS, "u1")
    raise ValueError(f"is stored as {depth} bits of mode {mode}; write grey of 8, 16 or 32 bits, or RGB of 8 bits")


def _bits(picture: Any) -> int:
    """Bits of a sample as the file has them, whatever Pillow makes of them."""
    if picture.format == "PNG":
        with open(picture.filename, "rb") as file:
            return file.read(25)[24]
    if picture.format == "TIFF":
        bits = np.ravel(picture.tag_v2.get(BIT_DEPTH, 1))
        return int(bits.max())
    return 8


def _end(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return file.read()


def _taken(exif: Any) -> tuple[float | None, str]:
    """When a picture was taken by its EXIF, with fraction and zone where it has them. Raises `ValueError`."""
    tags = {**dict(exif), **dict(exif.get_ifd(EXIF_PART))}
    for name, *keys in TAKEN:
        text, fraction, zone = (str(tags.get(key, "")).strip("\x00 ") for key in keys)
        if not text.strip("0: "):
            continue
        moment = moment_in(f"{text}{'.' + fraction if fraction.isdigit() else ''}{zone}")
        if moment is None:
            raise ValueError(f"has a time in its EXIF that is not understood: {name} '{text[:40]}' '{zone[:20]}'")
        return moment, f"EXIF {name}" + ("" if zone else ", which names no zone and is taken as UTC")
    return None, ""
