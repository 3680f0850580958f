"""Why a file of HDF5, or a dataset in it, cannot be read: one cause, one sentence, with what helps.

A locked file, a writer that was killed, a filter that is not installed and a disk that fails look alike to a caller of
the library; only a file that none of them explains is called damaged.
"""

import contextlib
import errno
import importlib
import re
import struct
from pathlib import Path
from typing import Any

import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LOOKED_AT = 64  # bytes that tell a format
LAST_USER_BLOCK = 2**20  # bytes before the signature; MATLAB writes 512
OLD_MATLAB = "save it in MATLAB with `save('x.mat','-v7.3')`, which is HDF5"
A_PICTURE = "is one picture; name the folder of all of them, or a pattern such as cam/*.png, as the camera"
OTHER_FORMATS = {  # by the first bytes of the file
    b"\x0e\x03\x13\x01": "is an HDF4 file; convert it with `h4toh5 old.hdf new.h5`",
    b"MATLAB 5.0": f"is a MATLAB file of version 5 to 7; {OLD_MATLAB}",
    b"MATLAB 7.3": "is a damaged MATLAB file of version 7.3; copy it again",
    b"\x89PNG": A_PICTURE,
    b"\xff\xd8\xff": A_PICTURE,
    b"II*\x00": A_PICTURE,
    b"MM\x00*": A_PICTURE,
    b"GRIB": "is a GRIB file; convert it with `cdo -f nc4 copy old.grib new.nc`",
    b"\x1f\x8b": "is compressed as a whole; unpack it with `gunzip`",
    b"PK\x03\x04": "is a zip archive; unpack it",
}
FILTERS = {  # those that are registered with the HDF Group and that instruments' files use
    305: "LZO", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "Bitshuffle", 32013: "ZFP",
    32015: "Zstandard", 32017: "SZ", 32018: "FCIDECOMP", 32022: "Granular BitRound", 32023: "SZ3", 32026: "Blosc2",
    32028: "SPERR", 4: "SZIP",
}  # fmt: skip
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)


def not_opened(path: Path, error: Exception) -> str:
    """Why the library did not open a file, and what helps: the rest of a sentence that begins with its path."""
    said, number = str(error), number_of(error)
    if "unable to lock file" in said:
        if number in _NO_LOCKS:
            return "cannot be locked: its disk knows no locks; set the environment variable HDF5_USE_FILE_LOCKING=FALSE"
        return (
            "is open for writing in another process; wait until that has closed it, or, if none writes it any more, "
            "set the environment variable HDF5_USE_FILE_LOCKING=FALSE"
        )
    if "consistency flags" in said or "already open for write" in said:
        return (
            "was not closed by the program that writes it: wait while that runs, or, if it was killed, mark the file "
            f"as closed with `h5clear -s {path.name}`"
        )
    try:
        with open(path, "rb") as file:
            start, signed = file.read(LOOKED_AT), _has_signature(path)
    except OSError as own:
        return _by_number(own.errno) or "cannot be opened"
    if (found := _by_number(number)) is not None:
        return found
    if signed and "truncated" in said:
        return "is truncated; copy it again, or wait until the program that writes it has closed it"
    if signed:
        return "is damaged; copy it again"
    return other_format(start)


def other_format(start: bytes) -> str:
    """What a file is that does not hold HDF5, by its first bytes, and how to convert it."""
    if _is_matlab_4(start):
        return f"is a MATLAB file of version 4; {OLD_MATLAB}"
    return next((text for head, text in OTHER_FORMATS.items() if start.startswith(head)), "is not an HDF5 file")


def _is_matlab_4(start: bytes) -> bool:
    """Whether a file begins with a matrix of MATLAB's version 4: its type, rows, columns, and a name of letters."""
    for order in ("<", ">"):
        if len(start) < 22:
            return False
        kind, rows, columns, imaginary, length = struct.unpack(f"{order}5i", start[:20])
        machine, zero, number, shape = kind // 1000, kind // 100 % 10, kind // 10 % 10, kind % 10
        typed = 0 <= machine <= 4 and zero == 0 and number <= 5 and shape <= 2
        name = start[20 : 20 + length].rstrip(b"\x00").decode(errors="replace") if 1 < length <= 64 else ""
        if typed and min(rows, columns) >= 0 and imaginary in (0, 1) and re.fullmatch(r"[A-Za-z]\w*", name):
            return True
    return False


def not_read(file: Any, name: str, error: Exception) -> str:
    """Why a dataset or an attribute of an open file cannot be read, and what helps: a sentence without its end."""
    with contextlib.suppress(Exception):  # whatever is wrong with it
        if "filter" in str(error) or "plugin" in str(error):
            found = missing_filter(file[name.split(",")[0]])
            if found:
                return f"'{name}' {found}"
    if isinstance(error, MemoryError) or number_of(error) == errno.ENOMEM:
        return f"'{name}' does not fit into the memory that is free ({first_line(error)}); close other programs"
    found = _by_number(number_of(error)) or ""
    if found:
        return f"'{name}': the file {found}"
    return f"'{name}' cannot be read, the file is damaged ({first_line(error)}); copy it again"


def missing_filter(item: h5py.Dataset) -> str:
    """What the data of a dataset are compressed with that is not installed here, and what helps; "" for nothing.

    The package hdf5plugin brings most filters; where it is installed it is loaded, once one of them is needed.
    """
    lacking = _lacking(item)
    if lacking and not _loaded():
        lacking = _lacking(item)
    if not lacking:
        return ""
    number, name = lacking[0]
    return (
        f"is compressed with the HDF5 filter {number} ({name}), which is not installed; `pip install hdf5plugin` (it "
        "is then loaded by itself; in Python of your own, `import hdf5plugin`), or rewrite the file where the filter "
        "is known: `h5repack -f GZIP=4 old.h5 new.h5`"
    )


def _lacking(item: h5py.Dataset) -> list[tuple[int, str]]:
    """The filters of a dataset that are not there, as (number, name)."""
    made = item.id.get_create_plist()
    used = [made.get_filter(index) for index in range(made.get_nfilters())]
    return [
        (code, FILTERS.get(code) or name.decode(errors="replace").strip("\x00") or "of no known name")
        for code, _, _, name in used
        if not h5py.h5z.filter_avail(code)
    ]


def _loaded() -> bool:
    """Load the package of filters. Returns whether nothing new came of it."""
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")
        return False
    return True


def number_of(error: Exception) -> int | None:
    """The system's number of an error, which the library writes into its text."""
    written = re.search(r"errno = (\d+)", str(error))
    return int(written[1]) if written else getattr(error, "errno", None)


def _by_number(number: int | None) -> str | None:
    """What is wrong with a file by the system's number; None where it says nothing of use."""
    if number in (errno.EACCES, errno.EPERM):
        return "may not be read: its permissions forbid it; `chmod u+r`, or ask its owner"
    if number in (errno.EMFILE, errno.ENFILE):
        return "cannot be opened: too many files are open; close some, or raise the limit with `ulimit -n`"
    if number in _DISK:
        return "cannot be read from its disk or network; check the mount, then try again"
    return None


def _has_signature(path: Path) -> bool:
    """Whether HDF5's signature stands at the start, or after a block of a user: at 512 bytes, 1024, 2048 …"""
    places = [0, *(2**power for power in range(9, LAST_USER_BLOCK.bit_length()))]
    with open(path, "rb") as file:
        for place in places:
            file.seek(place)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
    return False


def first_line(error: Exception) -> str:
    """The first line of what the library said."""
    return (str(error).strip("'\"").splitlines() or [type(error).__name__])[0][:200].encode(errors="replace").decode()
