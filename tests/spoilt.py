"""Flight files with every kind of spoilt content: one flight of real HDF5 or NetCDF-4 files from a string of bytes.

    spoilt_flight(folder, Choices(b"..."))        three files, of which one or several are wrong somewhere

What goes wrong: names, ranks, shapes, types, values, attributes, storage, links, groups, and single bytes.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from choices import Choices
from flight_files import FRAME_TIME, SIGNAL, camera_file, lidar_file, navigation_file, write_flight

ROLES = {"camera": camera_file, "lidar": lidar_file, "navigation": navigation_file}


@dataclass
class Content:
    """One dataset that is still to be written."""

    values: Any
    attributes: dict[str, Any] = field(default_factory=dict)
    dtype: Any = None
    storage: dict[str, Any] = field(default_factory=dict)  # of create_dataset
    instead: Callable[[h5py.File, str], None] | None = None  # writes something else in its place


Contents = dict[str, Content]


class Flights:
    """A good flight, kept as bytes and as arrays, from which spoilt ones are made."""

    def __init__(self, home: Path) -> None:
        folder = write_flight(home / "good", chunks=8)
        netcdf = as_netcdf(folder, home / "good_netcdf")
        self.paths = {role: find(folder) for role, find in ROLES.items()}
        self.bytes = {"h5": {role: path.read_bytes() for role, path in self.paths.items()}}
        self.bytes["nc"] = {role: path.read_bytes() for role, path in netcdf.items()}
        self.contents = {role: _contents(path) for role, path in self.paths.items()}

    def write(self, folder: Path, choices: Choices) -> dict[str, Path]:
        """The three files of one spoilt flight, by role; what lay there is replaced."""
        kind = "nc" if choices.one_in(16) else "h5"
        paths = {role: folder / path.name for role, path in self.paths.items()}
        wrong = choices.some(list(ROLES), 2)
        for role, path in paths.items():
            path.unlink(missing_ok=True)
            if role not in wrong:
                path.write_bytes(self.bytes[kind][role])
            elif kind == "nc" or choices.one_in(4):
                path.write_bytes(bent(self.bytes[kind][role], choices))
            else:
                spoilt = {name: Content(c.values, dict(c.attributes)) for name, c in self.contents[role].items()}
                for _ in range(1 + choices.below(3)):
                    choices.pick(SPOILERS)(spoilt, choices)
                _write(path, spoilt, choices)
        return paths


def as_netcdf(folder: Path, target: Path) -> dict[str, Path]:
    """The same flight as NetCDF-4 files, by role."""
    import netCDF4

    target.mkdir()
    found = {}
    for role, find in ROLES.items():
        found[role] = target / (find(folder).stem + ".nc")
        with h5py.File(find(folder)) as old, netCDF4.Dataset(found[role], "w") as new:
            for name, content in _contents(find(folder)).items():
                dims = []
                for length in np.shape(content.values):
                    dims.append(f"d{length}")
                    if dims[-1] not in new.dimensions:
                        new.createDimension(dims[-1], length)
                variable = new.createVariable(name, old[name].dtype.newbyteorder("="), dims, zlib=True)
                variable.set_auto_maskandscale(False)
                variable[...] = content.values
                variable.setncatts(content.attributes)
    return found


def _contents(path: Path) -> Contents:
    found: Contents = {}
    with h5py.File(path) as file:

        def keep(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = Content(item[()], dict(item.attrs))

        file.visititems(keep)
    return found


def _write(path: Path, contents: Contents, choices: Choices) -> None:
    """Write what can be written: HDF5 itself refuses some of it, and then that dataset is missing."""
    with h5py.File(path, "w", libver=choices.pick(["earliest", "latest"])) as file:
        for name, content in contents.items():
            try:
                if content.instead is not None:
                    content.instead(file, name)
                    continue
                item = file.create_dataset(name, data=content.values, dtype=content.dtype, **content.storage)
            except (TypeError, ValueError, OSError, RuntimeError, OverflowError, KeyError, AttributeError):
                continue
            for key, value in content.attributes.items():
                try:
                    item.attrs[key] = value
                except (TypeError, ValueError, OSError, RuntimeError):
                    continue


# --- what goes wrong

TYPES = [
    *("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">f8", ">i4", ">u2", "longdouble", "?"),
    *("c8", "c16", "S7", "V5", h5py.string_dtype(), h5py.string_dtype(length=3), h5py.vlen_dtype("f8")),
    *(h5py.ref_dtype, h5py.regionref_dtype, h5py.enum_dtype({"off": 0, "on": 1}), [("x", "f8"), ("y", "i4")]),
]
NUMBERS = [0.0, -1.0, 1e-300, -1e300, 1e300, 1e38, -9999.0, 9.969209968386869e36, np.nan, np.inf, -np.inf, 1e9, 366.0]
ATTRIBUTES = ["scale_factor", "add_offset", "_FillValue", "missing_value", "valid_range", "valid_min", "valid_max"]
UNITS = [
    "",
    "s",
    "hours since 2024-06-03",
    "days since 9999-99-99",
    "m",
    "rad",
    "ns",
    "\x00",
    "years since x",
    " " * 5000,
]


def odd_value(choices: Choices) -> Any:
    """A value that an attribute might have and should not."""
    odd: list[Any] = [
        *("text", "", "3.0", b"\xff\xfe", b"2", "0.001", True, 3 + 4j, 2**63, -1, 0, np.float16(3), np.longdouble(2)),
        *(
            np.zeros(0),
            np.ones(2),
            np.array([1.0, 0.5]),
            np.ones((2, 2)),
            np.full(7000, 2.0),
            np.array(["a", "b"], "S1"),
        ),
        *(h5py.Empty("f8"), h5py.Empty("S3"), np.array([(1.0, 2)], [("x", "f8"), ("y", "i4")]), np.array([b"\xff"])),
    ]
    return choices.pick([choices.pick(NUMBERS), choices.pick(odd), choices.pick(odd)])


def drop(contents: Contents, choices: Choices) -> None:
    """A dataset is missing."""
    contents.pop(_name(contents, choices), None)


def rename(contents: Contents, choices: Choices) -> None:
    """It has another name."""
    name = _name(contents, choices)
    if name in contents:
        contents[choices.pick([name.lower(), name + "2", "x/" + name, name.rsplit("/", 1)[-1]])] = contents.pop(name)


def reshape(contents: Contents, choices: Choices) -> None:
    """It has another rank or shape."""
    content = _content(contents, choices)
    values = np.atleast_1d(content.values)
    flat = values.ravel()
    content.values = choices.pick(
        [
            *(values[None], values[..., None], flat, values.T, values[:0], values[:1], values[:-1], values[::-1]),
            *(np.concatenate([values, values]), flat[0] if flat.size else 0.0, flat[:, None], values[..., :0]),
            *(flat.reshape(-1, *[1] * (1 + choices.below(8))), np.zeros((len(values) if values.ndim else 1, 0, 4))),
        ]
    )


def retype(contents: Contents, choices: Choices) -> None:
    """It has another type."""
    content = _content(contents, choices)
    dtype = choices.pick(TYPES)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content.values = np.asarray(content.values).astype(dtype)
        except (TypeError, ValueError, OverflowError):
            content.values = np.zeros(np.shape(content.values), dtype)
    content.dtype = dtype


def revalue(contents: Contents, choices: Choices) -> None:
    """Some or all of its values are wrong."""
    content = _content(contents, choices)
    values = np.array(content.values)
    if values.dtype.kind not in "iuf" or not values.size:
        return
    rng = np.random.default_rng(choices.below(2**16))
    how = choices.below(8)
    if how < 5:
        odd = choices.pick(NUMBERS)
        with np.errstate(over="ignore"):  # what a float32 cannot hold is infinite
            values = values.astype(choices.pick(["f8", "f4"])) if not np.isfinite(odd) or how == 4 else values
        values = np.atleast_1d(values)
        first = choices.below(values.size) if how else 0
        last = first + 1 + choices.below(values.size) if how else values.size
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.reshape(-1)[first:last] = np.asarray(odd).astype(values.dtype)
    elif how == 5:
        values = rng.permutation(values) if values.ndim else values
    elif how == 6:
        values = values[rng.integers(len(values), size=len(values))] if values.ndim and len(values) else values
    else:
        factor = choices.pick([1e3, 1e9, -1.0, 1e-3, 1e200])
        with np.errstate(all="ignore"):
            values = np.asarray(values * factor)
    content.values = values


def mark(contents: Contents, choices: Choices) -> None:
    """Its attributes are wrong."""
    content = _content(contents, choices)
    for _ in range(1 + choices.below(3)):
        if choices.one_in(3):
            content.attributes["units"] = choices.pick([*UNITS, odd_value(choices)])
        else:
            content.attributes[choices.pick(ATTRIBUTES)] = odd_value(choices)


def store(contents: Contents, choices: Choices) -> None:
    """It is stored in another way: chunked, filtered, growing, huge and never written, or packed absurdly well."""
    name = _name(contents, choices)
    content = contents.get(name)
    if content is None or not np.ndim(content.values):
        return
    shape = np.shape(content.values)
    filters: list[dict[str, Any]] = [
        {"compression": "gzip", "compression_opts": 9},
        {"compression": "lzf"},
        {"shuffle": True, "fletcher32": True},
        {"scaleoffset": 3},
        {"maxshape": (None,) * len(shape)},
        {"chunks": tuple(max(length, 1) for length in shape)},
        {"fillvalue": 7},
    ]
    if not choices.one_in(3):
        content.storage = choices.pick(filters)
        return
    huge = choices.pick([10**5, 10**7, 10**9, 10**15, 2**62])
    spread = tuple(huge if choices.one_in(2) else length for length in shape)
    options = choices.pick([{}, {"chunks": tuple(min(s, 64) for s in spread), "compression": "gzip"}, {"fillvalue": 5}])
    content.instead = lambda file, path: file.create_dataset(path, shape=spread, dtype="f4", **options) and None


def link(contents: Contents, choices: Choices) -> None:
    """In its place lies a link, a group, a type, or data of another file."""
    content = _content(contents, choices)
    shape = np.shape(content.values)
    first = tuple(0 for _ in shape)

    def virtual(target: str) -> Callable[[h5py.File, str], None]:
        def write(file: h5py.File, path: str) -> None:
            layout = h5py.VirtualLayout(shape, "f8")
            layout[...] = h5py.VirtualSource(target, "x", shape=shape)
            file.create_virtual_dataset(path, layout)

        return write

    def deep(file: h5py.File, path: str) -> None:
        place = file.require_group(path)
        for _ in range(200):
            place = place.create_group("g")

    def assign(item: Any) -> Callable[[h5py.File, str], None]:
        return lambda file, path: file.__setitem__(path, item)

    external = [("/etc/hostname", 0, 8 * max(int(np.prod(shape)), 1))]
    content.instead = choices.pick(
        [
            assign(h5py.SoftLink("/nowhere")),
            lambda file, path: file.__setitem__(path, h5py.SoftLink("/" + path)),
            lambda file, path: (file.__setitem__("loop", h5py.SoftLink("/" + path)), assign(h5py.SoftLink("/loop"))),
            assign(h5py.ExternalLink("/dev/zero", "x")),
            assign(h5py.ExternalLink("nowhere.h5", "x")),
            lambda file, path: file.__setitem__(path, h5py.ExternalLink(file.filename, "/")),
            lambda file, path: file.__setitem__(path, np.dtype("f8")),
            lambda file, path: file.create_group(path),
            lambda file, path: file.create_dataset(path, shape, "f8", external=external),
            lambda file, path: file.__setitem__(path, file["/"]),
            *(virtual("/etc/hostname"), virtual("nowhere.h5"), virtual("."), deep),
            lambda file, path: file.create_dataset(path, shape, "f8", chunks=shape if first else None),
        ]
    )


SPOILERS = [drop, rename, reshape, retype, revalue, revalue, mark, mark, store, link]


def bent(good: bytes, choices: Choices) -> bytes:
    """Bytes of a good file, some of them changed, cut off, doubled or put in."""
    data = bytearray(good)
    for _ in range(1 + choices.below(6)):
        # structure lies mostly at the start; one place in two is there
        place = choices.below(min(len(data), 4096)) if choices.one_in(2) else choices.below(len(data))
        how = choices.below(8)
        if how < 4:
            data[place] ^= 1 << choices.below(8)
        elif how == 4:
            data[place] = choices.pick([0, 1, 0x7F, 0x80, 0xFF])
        elif how == 5:
            length = 1 + choices.below(16)
            data[place : place + length] = choices.pick([b"\xff", b"\0"]) * length
        elif how == 6:
            other = choices.below(len(data))
            data[place : place + 64] = data[other : other + 64]
        elif len(data) > 64:
            del data[max(place, 64) :]
    return bytes(data)


def _name(contents: Contents, choices: Choices) -> str:
    """The images and times are chosen oftener."""
    names = list(contents) or ["none"]
    often = [name for name in names if name in (SIGNAL, FRAME_TIME)]
    return choices.pick(often) if often and choices.one_in(3) else choices.pick(names)


def _content(contents: Contents, choices: Choices) -> Content:
    name = _name(contents, choices)
    return contents.setdefault(name, Content(np.zeros(3)))
