"""A camera of one file a frame: its times, its channels, its packing; what does not fit is named and counted."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
from flight_files import START_S, tiny_config, utc
from PIL import Image

from cloudml_tf.commands.init import data_files
from cloudml_tf.config.data import FlightFiles, Limits
from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.discovery.mapping import map_files
from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.formats.calibration import packing_beside
from cloudml_tf.data.readers.formats.dates import moment_in, moment_of_name
from cloudml_tf.data.readers.frames import build_table, camera_fingerprint
from cloudml_tf.data.readers.packing import unpack
from cloudml_tf.data.readers.sandbox import read_flight
from cloudml_tf.inference.files import input_fingerprint
from cloudml_tf.utils.errors import DataError

NOON = utc(2024, 6, 3, 12, 0, 0)
SHARED = Path(os.environ.get("CLOUDML_SHARED", Path(__file__).parents[2] / "shared"))
KNMI = SHARED / "data/real/knmi_frames"


def counts(frames: int = 12, bits: int = 16) -> np.ndarray:
    """(frame, 8, 10) counts beyond the range of fewer bits."""
    top = 2**bits - 1
    return np.random.default_rng(0).integers(top // 2, top, (frames, 8, 10)).astype(f"u{bits // 8}")


def write_pictures(folder: Path, images: np.ndarray, name: str = "cam_20240603_1200{:02d}.png", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number), **options)
    return folder


# --- moments


@pytest.mark.parametrize(
    ("text", "after_noon_s"),
    [
        ("2024-06-03T12:00:00", 0), ("2024-06-03 12:00:01.25Z", 1.25), ("2024-06-03T14:00:00+02:00", 0),
        ("2024:06:03 12:00:00", 0), ("03-JUN-2024;12:00:05.500", 5.5), ("20240603120007", 7),
        ("20240603 120007", 7), ("2024/06/03 12:00:00,5 UTC", 0.5), ("20240603T120000.125Z", 0.125),
    ],
)  # fmt: skip
def test_moments_in_texts(text: str, after_noon_s: float) -> None:
    assert moment_in(text) == NOON + after_noon_s


@pytest.mark.parametrize(
    "text",
    ["", "2024-06-03", "2024-06-31 12:00:00", "12:00:00", "2024:06:03 12:00", "03/06/2024 12:00:00", "1717416000",
     "2024-06-03 12:00:00 CEST", "2024-06-03 25:00:00", "0000:00:00 00:00:00"],
)  # fmt: skip
def test_texts_that_are_no_moment(text: str) -> None:
    assert moment_in(text) is None


@pytest.mark.parametrize(
    ("stem", "after_noon_s"),
    [
        ("cam_202406031200", 0), ("20240603120009", 9), ("IMG_20240603_120009", 9), ("c20240603T120009Z", 9),
        ("20240603120009250", 9.25), ("x_2024-06-03_12-00-09", 9), ("2024-06-03T12-00-09-250", 9.25),
        ("20240603_120009.250_0017", 9.25), ("RAD_NL25_RAP_5min_202406031205", 300), ("20240603_120009_001", 9),
        ("s20240603120000_e20240603120100", 0), ("sensor7_20240603_1200_b", 0),
    ],
)  # fmt: skip
def test_moments_in_names(stem: str, after_noon_s: float) -> None:
    assert moment_of_name(stem) == NOON + after_noon_s


@pytest.mark.parametrize(
    "stem", ["frame_0001", "cam_20240603", "20241303_120000", "20240603_256000", "1200", "12_20240603"]
)
def test_names_without_a_moment(stem: str) -> None:
    assert moment_of_name(stem) is None


# --- pictures


@pytest.mark.parametrize(("suffix", "bits"), [("png", 8), ("png", 16), ("tif", 8), ("tif", 16)])
def test_grey_pictures_keep_their_counts(tmp_path: Path, suffix: str, bits: int) -> None:
    images = counts(bits=bits)
    folder = write_pictures(tmp_path / "cam", images, f"cam_20240603_1200{{:02d}}.{suffix}")
    with hdf5.open_file(folder) as file:
        item = hdf5.images(file, "image", "")
        assert item.dtype == images.dtype
        np.testing.assert_array_equal(item[()], images)
        np.testing.assert_array_equal(item[3:7, 2:5, 1:], images[3:7, 2:5, 1:])
        np.testing.assert_array_equal(item[4], images[4])
        np.testing.assert_array_equal(hdf5.read(file, "time", 1), NOON + np.arange(12.0))


def test_floats_of_a_tiff_are_kept(tmp_path: Path) -> None:
    images = counts().astype("f4") / 7
    folder = write_pictures(tmp_path / "cam", images, "cam_20240603_1200{:02d}.tiff")
    with hdf5.open_file(folder / "*.tiff") as file:
        np.testing.assert_array_equal(file["image"][()], images)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_three_channels(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 8, 10, channels)).astype("u1")
    folder = write_pictures(tmp_path / "cam", images)
    with hdf5.open_file(folder) as file:
        assert hdf5.names(file) == ["blue", "green", "red", "time"]
        for number, name in enumerate(("red", "green", "blue")):
            np.testing.assert_array_equal(file[name][2:4], images[2:4, ..., number])


def test_a_jpeg_is_near_to_what_was_written(tmp_path: Path) -> None:
    images = np.full((9, 8, 10), 90, "u1") + np.arange(9, dtype="u1")[:, None, None]
    folder = write_pictures(tmp_path / "cam", images, "cam_20240603_1200{:02d}.jpg", quality=95)
    with hdf5.open_file(folder) as file:
        np.testing.assert_allclose(file["image"][()], images, atol=2)


@pytest.mark.parametrize(
    ("tags", "zone", "expected_s", "source"),
    [
        ({36867: "2024:06:03 12:00:{:02d}"}, {}, 0.0, "taken as UTC"),
        ({36867: "2024:06:03 14:00:{:02d}", 37521: "250", 36881: "+02:00"}, {}, 0.25, "EXIF DateTimeOriginal"),
        ({36868: "2024:06:03 12:00:{:02d}", 36882: "Z"}, {306: "2024:06:09 09:00:00"}, 0.0, "EXIF DateTimeDigitized"),
        ({}, {306: "2024:06:03 12:00:{:02d}"}, 0.0, "EXIF DateTime,"),
    ],
)
def test_times_of_exif_with_fractions_and_zones(
    tmp_path: Path, tags: dict[int, str], zone: dict[int, str], expected_s: float, source: str
) -> None:
    (tmp_path / "cam").mkdir()
    for number in range(9):
        exif = Image.Exif()
        for key, value in zone.items():
            exif[key] = value.format(number)
        exif[0x8769] = {key: value.format(number) for key, value in tags.items()}  # type: ignore[assignment]
        Image.fromarray(counts(1, 8)[0]).save(tmp_path / "cam" / f"{number}.jpg", exif=exif)
    with hdf5.open_file(tmp_path / "cam") as file:
        np.testing.assert_allclose(hdf5.read(file, "time", 1), NOON + expected_s + np.arange(9.0))
        assert source in hdf5.text(file["time"], "long_name")


def raw_png(depth: int, colour: int) -> bytes:
    """A PNG of 8 x 8 pixels that Pillow itself cannot write."""
    import struct
    import zlib

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = b"\x00" + bytes(range(1, 1 + 8 * samples * max(depth, 8) // 8))[: 8 * samples * depth // 8]
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(row * 8))]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("depth", "colour"), [(16, 2), (16, 6), (16, 4), (4, 0), (2, 0), (1, 0)])
def test_what_pillow_would_change_is_refused(tmp_path: Path, depth: int, colour: int) -> None:
    (tmp_path / "cam").mkdir()
    for number in range(3):
        (tmp_path / "cam" / f"20240603_12000{number}.png").write_bytes(raw_png(depth, colour))
    with pytest.raises(DataError, match=rf"20240603_120000.png is stored as {depth} bits of mode .*; write grey of 8"):
        read_content(tmp_path / "cam")


def spoil_pictures(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Spoil files of a folder: yields (file, its count, what is told)."""
    names = sorted(path.name for path in folder.iterdir())
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-30])
    yield names[1], "frames whose file cannot be read", "is truncated; copy it again"
    Image.fromarray(counts(1)[0][:, :7]).save(folder / names[4])
    yield names[4], "frames unlike the others", "has 'image' 8 x 7 <u2, and most have 'image' 8 x 10 <u2"
    (folder / names[7]).rename(folder / "test.png")
    yield "test.png", "frames whose file has no time", "has no time in its attributes or its name"
    (folder / names[8]).write_text("no picture")
    yield names[8], "frames whose file cannot be read", "is no picture that can be read"


def test_files_that_do_not_fit_are_counted_and_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "cam", counts(20))
    spoilt = list(spoil_pictures(folder))
    with hdf5.open_file(folder) as file:
        assert file["image"].shape == (16, 8, 10)
        assert len(hdf5.read(file, "time", 1)) == 16
        told, counted = "; ".join(file.notes), file.counts  # type: ignore[attr-defined]
    assert sum(counted.values()) == 4
    assert "4 files are left out" in told
    assert sum(f"{name} {why}" in told for name, _, why in spoilt) == 3  # and one more
    assert {kind for _, kind, _ in spoilt} == set(counted)


def test_a_picture_damaged_inside_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "cam", counts(9))
    path = folder / "cam_20240603_120005.png"
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)
    with hdf5.open_file(folder) as file:
        assert file["image"][:5].shape == (5, 8, 10)
        with pytest.raises(DataError, match=r"cam_20240603_120005\.png: cannot be decoded .*copy it again"):
            file["image"][()]


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda folder: None, "needs files of one kind, an image or a part of a flight each. Received: none"),
        (lambda folder: [(folder / name).write_bytes(b"") for name in ("a.png", "b.h5")], r"Received: 1 \.h5, 1 \.png"),
        (lambda folder: write_pictures(folder, counts(9), "f{:03d}.png"), "0 of its 9 files are frames of a camera"),
    ],
)
def test_a_folder_that_is_no_camera(tmp_path: Path, prepare: Any, expected: str) -> None:
    (tmp_path / "cam").mkdir()
    prepare(tmp_path / "cam")
    with pytest.raises(DataError, match=expected):
        read_content(tmp_path / "cam")


def test_a_pattern_that_matches_nothing_and_one_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\*\.png: matches no file; name a folder, or a pattern"):
        read_content(tmp_path / "*.png")
    write_pictures(tmp_path, counts(1))
    with pytest.raises(DataError, match="is one picture; name the folder of all of them, or a pattern"):
        read_content(tmp_path / "cam_20240603_120000.png")


def test_a_picture_too_large_is_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "cam", np.ones((3, 600, 600), "u1"))
    with (
        pytest.raises(DataError, match=r"has 600 x 600 pixels, more than data.limits.read_mb 1 allows"),
        hdf5.open_file(folder, Limits(read_mb=1)),
    ):
        pass


def test_the_fingerprint_is_that_of_all_files(tmp_path: Path) -> None:
    one, same = (write_pictures(tmp_path / name, counts(9)) for name in ("a", "b"))
    other = write_pictures(tmp_path / "c", counts(9)[::-1])
    assert camera_fingerprint(one) == camera_fingerprint(same / "*.png")
    assert camera_fingerprint(one) != camera_fingerprint(other)


def test_what_a_prediction_was_made_of_is_all_files(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "cam", counts(40))
    before = input_fingerprint(FlightFiles(camera=str(folder)))
    assert before == input_fingerprint(FlightFiles(camera=str(folder / "*.png")))
    next(folder.iterdir()).unlink()
    assert before != input_fingerprint(FlightFiles(camera=str(folder)))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_any_flipped_byte_of_a_picture_is_refused_or_harmless(tmp_path: Path, suffix: str) -> None:
    """Of three files one is spoilt; the others stay a camera."""
    folder, rng = (
        write_pictures(tmp_path / "cam", counts(3, 8), f"cam_20240603_1200{{:02d}}.{suffix}"),
        np.random.default_rng(1),
    )
    path = sorted(folder.iterdir())[1]
    content = path.read_bytes()
    for _ in range(150):
        spoilt = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            spoilt[place] ^= int(rng.integers(1, 256))
        path.write_bytes(spoilt)
        with contextlib.suppress(DataError), hdf5.open_file(folder) as file:
            assert file["time"].shape[0] in (2, 3)
            hdf5.images(file, "image", "")[()]


# --- HDF5 and NetCDF


def write_hdf5(folder: Path, images: np.ndarray, **calibration: Any) -> Path:
    """As KNMI writes radar composites."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        with h5py.File(folder / f"RAD_20240603120{number}.h5", "w") as file:
            file["image1/image_data"] = image
            file["image1"].attrs["image_geo_parameter"] = np.bytes_("REFLECTIVITY_[DBZ]")
            start = np.array([f"03-JUN-2024;12:0{number}:00.000".encode()])
            file.create_group("overview").attrs["product_datetime_start"] = start
            if calibration:
                file.create_group("image1/calibration").attrs.update(calibration)
    return folder


@pytest.mark.parametrize(
    ("formula", "scale", "offset"),
    [("GEO=0.01*PV+0.0", 0.01, 0.0), ("GEO = 0.5 * PV - 32", 0.5, -32.0), ("GEO=1e-2*PV", 0.01, 0.0)],
)
def test_a_calibration_by_formula_is_understood(tmp_path: Path, formula: str, scale: float, offset: float) -> None:
    images = counts(6)
    images[2, 1, 1] = 65535
    calibration = {"calibration_formulas": np.bytes_(formula), "calibration_missing_data": np.array([65535])}
    folder = write_hdf5(tmp_path / "radar", images, calibration_flag=np.bytes_("Y"), **calibration)
    with hdf5.open_file(folder) as file:
        item = hdf5.images(file, "image1/image_data", "")
        expected = np.where(images == 65535, np.nan, scale * images + offset)
        np.testing.assert_allclose(unpack(item[()], hdf5.packing(item)), expected)
        assert "REFLECTIVITY_[DBZ]" in hdf5.text(item, "long_name")
        np.testing.assert_array_equal(hdf5.read(file, "time", 1), NOON + 60 * np.arange(6.0))


@pytest.mark.parametrize("formula", ["GEO=10*log(PV)", "GEO=0.5*PV*PV+1", "PV=0.5*GEO", "0.5", "GEO=0.5*PV+1;GEO=2*PV"])
def test_another_formula_is_refused_by_name(tmp_path: Path, formula: str) -> None:
    folder = write_hdf5(tmp_path / "radar", counts(6), calibration_formulas=np.bytes_(formula))
    with pytest.raises(DataError, match="is calibrated by a formula that is not understood"):
        read_content(folder)


def test_odim_is_packed_by_its_gain() -> None:
    found = packing_beside("what", {"gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0})
    np.testing.assert_array_equal(unpack(np.array([0, 10, 255], "u1"), found), [np.nan, -27.0, np.nan])
    assert packing_beside("what", {"product": b"COMP"}) == {}


def test_files_packed_in_two_ways_are_not_mixed(tmp_path: Path) -> None:
    folder = write_hdf5(tmp_path / "radar", counts(6), calibration_formulas=np.bytes_("GEO=0.01*PV+0.0"))
    with h5py.File(folder / "RAD_202406031203.h5", "r+") as file:
        file["image1/calibration"].attrs["calibration_formulas"] = np.bytes_("GEO=0.1*PV+0.0")
    with hdf5.open_file(folder) as file:
        assert file["image1/image_data"].shape == (5, 8, 10)
        assert "RAD_202406031203.h5 has 'image1/image_data' 8 x 10" in file.notes[-1]


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize("by", ["variable", "attribute", "name"])
def test_netcdf_with_one_image_a_file(tmp_path: Path, form: str, by: str) -> None:
    images = counts(6).astype("i2")
    for number, image in enumerate(images):
        stem = f"frame_20240603_1200{number:02d}" if by == "name" else f"frame_{number:04d}"
        with netCDF4.Dataset(tmp_path / f"{stem}.nc", "w", format=form) as file:
            for side, length in (("time", 1), ("y", 8), ("x", 10)):
                file.createDimension(side, length)
            item = file.createVariable("rad", "i2", ("time", "y", "x"))
            item.setncatts({"scale_factor": 0.5, "units": "W m-2"})
            item.set_auto_maskandscale(False)
            item[:] = image[None]
            if by == "variable":
                moment = file.createVariable("time", "f8", ("time",))
                moment.units = "minutes since 2024-06-03 12:00:00"
                moment[:] = number / 60
            elif by == "attribute":
                file.time_coverage_start = f"2024-06-03T12:00:{number:02d}Z"
    with hdf5.open_file(tmp_path) as file:
        item = hdf5.images(file, "rad", "")
        np.testing.assert_array_equal(unpack(item[()], hdf5.packing(item)), images * 0.5)
        np.testing.assert_allclose(hdf5.read(file, "time", 1), NOON + np.arange(6.0))


def test_a_time_that_is_not_understood_is_not_replaced_by_the_name(tmp_path: Path) -> None:
    folder = write_hdf5(tmp_path / "radar", counts(6))
    for path in folder.iterdir():
        with h5py.File(path, "r+") as file:
            file["overview"].attrs["product_datetime_start"] = "noon"
    with pytest.raises(DataError, match="has a time that is not understood: attribute product_datetime_start 'noon'"):
        read_content(folder)


def load(camera: str, tmp_path: Path, **settings: Any) -> Any:
    """A flight of a camera alone, as for a prediction."""
    data = tiny_config(tmp_path).data
    section = data.camera.model_copy(update={"time": "time", **settings})
    data = data.model_copy(update={"camera": section, "sun_angles": False, "features": ()})
    files = FlightFiles(camera=camera)
    flight = read_flight("a", files, data, tiny_config(tmp_path).target, labels=False)
    return flight, build_table([flight], {"a": np.arange(len(flight))}, data)


def test_a_flight_counts_the_files_that_are_left_out(tmp_path: Path) -> None:
    images = counts(20)
    folder = write_pictures(tmp_path / "cam", images)
    kept = np.delete(images, [1, 4, 7, 8], axis=0)
    assert len(list(spoil_pictures(folder))) == 4
    flight, table = load(str(folder), tmp_path, channels=("image",))
    assert len(flight) == 16
    counted = {key: count for key, count in flight.counts.items() if count}
    assert counted == {
        "frames": 16, "frames whose file cannot be read": 2, "frames unlike the others": 1,
        "frames whose file has no time": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(table.radiance[..., 0], kept)


@pytest.mark.skipif(not KNMI.is_dir(), reason="real files are not part of the repository")
def test_real_composites_are_a_camera_when_they_are_named(tmp_path: Path) -> None:
    """Of a part of the image that has no missing pixel."""
    settings = {"channels": ("image1/image_data",), "rows": (300, 340), "columns": (250, 290)}
    flight, table = load(str(KNMI / "RAD_*.h5"), tmp_path, **settings)
    np.testing.assert_array_equal(flight.time_s, utc(2010, 8, 25, 23, 55) + 300 * np.arange(12.0))
    assert flight.frame_shape == (40, 40, 1)
    assert np.isfinite(table.radiance).all()


# --- init


def test_init_takes_pictures_of_a_folder_together_and_leaves_a_few_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "flight" / "cam", counts(9))
    write_pictures(tmp_path / "plots", counts(3))
    (tmp_path / "flight" / "lidar.nc").write_bytes(b"")
    expected = [tmp_path / "flight" / "lidar.nc", tmp_path / "flight" / "cam" / "*.png"]
    assert data_files([str(tmp_path)]) == expected
    each = [str(path) for path in (tmp_path / "flight" / "cam").iterdir()]
    assert data_files(each) == expected[1:]
    assert data_files([str(path) for path in (tmp_path / "plots").iterdir()]) == [tmp_path / "plots" / "*.png"]


def test_composites_are_listed_and_not_proposed(tmp_path: Path) -> None:
    folder = write_hdf5(
        tmp_path / "radar", np.tile(counts(6), (1, 4, 4)), calibration_formulas=np.bytes_("GEO=0.01*PV+0.0")
    )
    mapping = map_files([read_content(path) for path in sorted(folder.iterdir())])
    assert not mapping.sections["camera"]
    (note,) = (note for note in mapping.notes if "one image each" in note)
    assert "RAD_20240603120*.h5: 6 files with one image each, 'image1/image_data' (32, 40)" in note
    assert "from 2024-06-03 12:00:00 to 2024-06-03 12:05:00, which call themselves REFLECTIVITY_[DBZ]" in note
    assert "They are not proposed as a camera" in note
    assert START_S == NOON


@pytest.mark.skipif(not KNMI.is_dir(), reason="real files are not part of the repository")
def test_real_composites_are_listed_and_can_be_read_as_a_camera() -> None:
    mapping = map_files([read_content(path) for path in sorted(KNMI.glob("*.h5"))])
    assert not mapping.sections["camera"]
    (note,) = (note for note in mapping.notes if "one image each" in note)
    assert "from 2010-08-25 23:55:00 to 2010-08-26 00:50:00, which call themselves ACCUMULATED_PRECIPITATION" in note
    with hdf5.open_file(KNMI) as file:
        item = hdf5.images(file, "image1/image_data", "")
        assert item.shape == (12, 765, 700)
        values = unpack(item[3:5, 300:400], hdf5.packing(item))
        with h5py.File(sorted(KNMI.glob("*.h5"))[3]) as first:
            raw = first["image1/image_data"][300:400]
        np.testing.assert_allclose(values[0], np.where(raw == 65535, np.nan, 0.01 * raw))
