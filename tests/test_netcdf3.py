"""NetCDF-3: what other libraries write is read bit for bit, by slices; a header is not believed."""

import contextlib
import os
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import scipy.io
from flight_files import camera_file, navigation_file, tiny_config, write_flight

from cloudml_tf.config.data import Lidar, Target
from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import load_flight
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.readers.frames import build_table
from cloudml_tf.data.readers.lidar import read_profiles
from cloudml_tf.utils.errors import DataError

FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET"]
SHARED = Path(os.environ.get("CLOUDML_SHARED", Path(__file__).parents[2] / "shared"))
REAL = SHARED / "data/real"


def sample(path: Path, form: str = "NETCDF3_CLASSIC", unlimited: int | None = None, only: str = "") -> Path:
    """All types, with and without the unlimited dimension; odd lengths, so that records need padding."""
    rng = np.random.default_rng(3)
    with netCDF4.Dataset(path, "w", format=form) as file:
        file.createDimension("time", unlimited)
        file.createDimension("x", 3)
        file.createDimension("y", 5)
        file.title = "Émilie"
        for kind in ("i1", "i2", "i4", "f4", "f8"):
            if only and kind != only:
                continue
            file.createVariable(f"r_{kind}", kind, ("time",))[:] = rng.integers(-90, 90, 7)
            if not only:
                file.createVariable(f"images_{kind}", kind, ("time", "x", "y"))[:] = rng.integers(-9, 9, (7, 3, 5))
                file.createVariable(f"fixed_{kind}", kind, ("y", "x"))[:] = rng.integers(-90, 90, (5, 3))
        if not only:
            file.createVariable("letters", "S1", ("x",))[:] = [b"a", b"b", b"c"]
            item = file.createVariable("packed", "i2", ("x",))
            item.setncatts({"units": "km", "scale_factor": 0.5, "missing_value": np.int16(-9)})
            item.set_auto_maskandscale(False)
            item[:] = [1, -9, 3]
            file.createVariable("one", "f8", ())[:] = 4.0
    return path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("unlimited", [None, 7])
def test_every_type_is_read_as_netcdf_itself_reads_it(tmp_path: Path, form: str, unlimited: int | None) -> None:
    path = sample(tmp_path / "x.nc", form, unlimited)
    with netCDF4.Dataset(path) as theirs, hdf5.open_file(path) as ours:
        theirs.set_auto_maskandscale(False)
        assert hdf5.names(ours) == sorted(theirs.variables)
        assert hdf5.text(ours, "title") == "Émilie"
        for name, item in theirs.variables.items():
            assert ours[name].shape == item.shape
            assert ours[name].dtype == item.dtype
            np.testing.assert_array_equal(ours[name][()], np.asarray(item[...]))
        images = hdf5.images(ours, "images_i2", "")
        np.testing.assert_array_equal(images[2:5, 1:, :2], theirs["images_i2"][2:5, 1:, :2])
        np.testing.assert_array_equal(hdf5.read(ours, "packed", 1), [0.5, np.nan, 1.5])
        assert hdf5.unit(hdf5.dataset(ours, "packed")) == "km"


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f8"])
def test_a_single_variable_of_records_is_not_padded(tmp_path: Path, kind: str) -> None:
    path = sample(tmp_path / "x.nc", only=kind)
    with netCDF4.Dataset(path) as theirs, hdf5.open_file(path) as ours:
        np.testing.assert_array_equal(ours[f"r_{kind}"][()], np.asarray(theirs[f"r_{kind}"][:]))


def test_records_are_counted_by_the_size_where_the_writer_streams(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.nc")
    with hdf5.open_file(path) as file:
        expected = file["images_f8"][()]
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff" * 4
    path.write_bytes(content)
    with hdf5.open_file(path) as file:
        np.testing.assert_array_equal(file["images_f8"][()], expected)


def test_an_attribute_called_data_does_not_replace_the_numbers(tmp_path: Path) -> None:
    """As it does in SciPy's reader."""
    with netCDF4.Dataset(tmp_path / "x.nc", "w", format=FORMATS[0]) as file:
        file.setncatts({"variables": "height", "dimensions": "profile"})
        file.createDimension("n", 2)
        item = file.createVariable("x", "f4", ("n",))
        item[:] = [1.0, 2.0]
        item.setncatts({"data": "calibrated", "shape": "flat"})
    with hdf5.open_file(tmp_path / "x.nc") as file:
        np.testing.assert_array_equal(hdf5.read(file, "x", 1), [1.0, 2.0])


def test_what_was_read_outlives_the_file_and_nothing_warns(tmp_path: Path) -> None:
    path = sample(tmp_path / "x.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with hdf5.open_file(path) as file:
            item, values = file["r_f8"], file["r_f8"][:3]
        assert np.isfinite(values).all()
        with pytest.raises(ValueError, match="closed"):
            item[()]


@pytest.mark.parametrize("form", ["NETCDF3_64BIT_DATA"])
def test_64_bit_data_is_refused_with_the_way_out(tmp_path: Path, form: str) -> None:
    path = sample(tmp_path / "x.nc", form)
    with pytest.raises(DataError, match=r"x\.nc: is a NetCDF-3 file with 64-bit data \(CDF-5\); .*`nccopy -k nc4"):
        read_content(path)


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_content(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    content = sample(tmp_path / "x.nc").read_bytes()
    assert "is truncated; copy it again ('" in refused(tmp_path / "y.nc", content[:-300])
    assert "is truncated; copy it again" in refused(tmp_path / "y.nc", content[:90])
    assert "is truncated; copy it again" in refused(tmp_path / "y.nc", b"CDF\x01")


# name: bytes after "CDF\x01", numrecs 0: a list of dimensions, of attributes, of variables
EMPTY = struct.pack(">II", 0, 0)
ONE = struct.pack(">III4sI", 10, 1, 1, b"n", 2**31 - 4)


def variable(axes: list[int], kind: int, begin: int) -> bytes:
    head = (
        struct.pack(">III4s", 11, 1, 1, b"v")
        + struct.pack(">I", len(axes))
        + b"".join(struct.pack(">I", a) for a in axes)
    )
    return head + EMPTY + struct.pack(">IIi", kind, 0, begin)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (struct.pack(">II", 10, 2**31 - 1), "its header is none of NetCDF-3"),
        (struct.pack(">II", 12, 1), "its header is none of NetCDF-3"),
        (struct.pack(">IIi", 10, 1, -5), "a negative length"),
        (struct.pack(">III", 10, 1, 2**31 - 1), "a text or a list of 2147483647 bytes"),
        (EMPTY + struct.pack(">III4sII", 12, 1, 1, b"a", 6, 2**30), "a text or a list of 8589934592 bytes"),
        (EMPTY + struct.pack(">III4sII", 12, 1, 1, b"a", 77, 2), "a type 77"),
        (ONE + EMPTY + variable([0], 6, 900), "is truncated"),
        (ONE + EMPTY + variable([3], 6, 900), "'v' has a dimension that is not there"),
        (ONE + EMPTY + variable([0] * 3, 6, 900), "a dimension that is not there|is damaged|is truncated"),
        (struct.pack(">III4sI", 10, 1, 1, b"n", 1) + EMPTY + variable([0], 6, 0), "would begin inside its header"),
        (struct.pack(">III4sI", 10, 1, 1, b"n", 1) + EMPTY + variable([0], 6, -8), "would begin inside its header"),
    ],
)
def test_a_header_that_claims_too_much(tmp_path: Path, body: bytes, expected: str) -> None:
    message = refused(tmp_path / "x.nc", b"CDF\x01" + struct.pack(">I", 0) + body + bytes(64))
    assert any(text in message for text in expected.split("|")), message


def test_a_version_that_does_not_exist(tmp_path: Path) -> None:
    assert "no NetCDF file of a known version (CDF-7)" in refused(tmp_path / "x.nc", b"CDF\x07" + bytes(64))


def test_any_flipped_byte_of_a_header_is_refused_or_harmless(tmp_path: Path) -> None:
    content = sample(tmp_path / "x.nc").read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(min(len(content), 1400), 300, replace=False):
        spoilt = bytearray(content)
        spoilt[place] ^= int(rng.integers(1, 256))
        (tmp_path / "y.nc").write_bytes(spoilt)
        with contextlib.suppress(DataError):
            read_content(tmp_path / "y.nc")


def as_netcdf3(path: Path, form: str) -> Path:
    """The datasets of a flat HDF5 file as NetCDF-3, in place of it."""
    with h5py.File(path) as old:
        found: dict[str, Any] = {}
        old.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        attrs = {name: dict(old[name].attrs) for name in found}
    path.unlink()
    with netCDF4.Dataset(path, "w", format=form) as new:
        for name, values in found.items():
            values = values.astype("i2" if values.dtype == "u2" else values.dtype)
            axes = [f"n{side}" for side in values.shape]
            for axis, side in zip(axes, values.shape, strict=True):
                if axis not in new.dimensions:
                    new.createDimension(axis, side)
            item = new.createVariable(name.replace("/", "_"), values.dtype, axes)
            item.set_auto_maskandscale(False)
            item[:] = values
            item.setncatts(attrs[name])
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_a_flight_of_netcdf3_is_the_same_flight(tmp_path: Path, form: str) -> None:
    config = tiny_config(tmp_path)
    folder = write_flight(tmp_path / "a")
    before = load_flight("a", find_flights(folder, config.data)["a"], config.data, config.target)
    table = build_table([before], {"a": np.arange(len(before))}, config.data)
    for path in (camera_file(folder), navigation_file(folder)):
        as_netcdf3(path, form)
    camera = config.data.camera.model_copy(update={"channels": ("Product_Signal",), "time": "Time_TimeUTC"})
    keys = {"solar_zenith": "nav_solarZenith", "solar_azimuth": "nav_sunAzGrd", "heading": "nav_heading"}
    navigation = config.data.navigation.model_copy(update=keys)
    data = config.data.model_copy(update={"camera": camera, "navigation": navigation})
    after = load_flight("a", find_flights(folder, data)["a"], data, config.target)
    np.testing.assert_array_equal(before.label, after.label)
    np.testing.assert_array_equal(before.sun_angles_deg, after.sun_angles_deg)
    again = build_table([after], {"a": np.arange(len(after))}, data)
    np.testing.assert_array_equal(again.radiance, table.radiance)


@pytest.mark.skipif(not REAL.is_dir(), reason="real files are not part of the repository")
@pytest.mark.parametrize("name", ["chm15k_202010220005.nc", "enatsiskycoverC1.b1.20230307.082100.cdf"])
def test_real_files_are_read_as_another_library_reads_them(tmp_path: Path, name: str) -> None:
    shutil.copy(REAL / name, tmp_path / name)
    with hdf5.open_file(tmp_path / name) as ours, scipy.io.netcdf_file(tmp_path / name, mmap=False) as theirs:
        assert set(ours) == set(theirs.variables)
        for key in ours:
            np.testing.assert_array_equal(ours[key][()], theirs.variables[key].data)


@pytest.mark.skipif(not REAL.is_dir(), reason="real files are not part of the repository")
def test_a_real_ceilometer_gives_labels() -> None:
    lidar = Lidar(time="time", base="cbh", layer="bottom")
    profiles = read_profiles(REAL / "chm15k_202010220005.nc", lidar, Target(name="cloud_base_km"))
    assert len(profiles.label) == 10
    assert 1603324800 < profiles.middle_s[0] < 1603324800 + 86400  # 2020-10-22
