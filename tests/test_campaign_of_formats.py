"""A campaign without an HDF5 file: pictures, NetCDF-3 and ICARTT, through `init --from` to a flight that is read."""

import json
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from flight_files import tiny_config, utc
from icartt_files import navigation, write_icartt
from PIL import Image

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config
from cloudml_tf.data.readers.folders import find_flights
from cloudml_tf.data.readers.frames import build_table
from cloudml_tf.data.readers.sandbox import read_flight

FRAMES, SIDE = 120, 16
START_S = utc(2024, 6, 3, 14, 0, 0)


def strip() -> np.ndarray:
    """Optical depth along a strip of cloud (frame + 16, 16)."""
    rng = np.random.default_rng(0)
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(FRAMES + SIDE), np.fft.rfftfreq(SIDE), indexing="ij"))
    noise = np.fft.rfft2(rng.normal(size=(FRAMES + SIDE, SIDE))) / (0.02 + waves) ** 1.7
    field = np.fft.irfft2(noise, s=(FRAMES + SIDE, SIDE))
    return np.exp(0.5 * (field - field.mean()) / field.std() - 0.3)


def as_camera(kind: str, scene: np.ndarray) -> np.ndarray:
    """A frame's counts: 16 bits of grey, or 8 bits in three colours."""
    if kind == "tif16":
        return (60_000 * scene).astype("u2")
    if kind == "png":
        return np.stack([(250 * scene * gain).astype("u1") for gain in (1.0, 0.9, 0.8)], axis=-1)
    return (250 * scene).astype("u1")


def write_campaign(folder: Path, kind: str) -> Path:
    """Pictures each second, a label each two seconds, navigation each second."""
    (folder / "cam").mkdir(parents=True)
    depth = strip()
    scene = depth / (depth + 7)
    for number in range(FRAMES):
        minute, second = divmod(number, 60)
        name = f"IMG_20240603_14{minute:02d}{second:02d}.{ {'tif16': 'tif', 'png': 'png', 'jpg': 'jpg'}[kind] }"
        Image.fromarray(as_camera(kind, scene[number : number + SIDE])).save(folder / "cam" / name)
    seen = np.arange(0, FRAMES, 2)
    with netCDF4.Dataset(folder / "lidar_20240603.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("time", None)
        time = file.createVariable("time", "f8", ("time",))
        time.units = "seconds since 2024-06-03 14:00:00"
        time[:] = seen
        item = file.createVariable("cloud_optical_depth", "f4", ("time",))
        item.setncatts({"units": "1", "missing_value": np.float32(-999)})
        item[:] = depth[seen + 8, 8]
    rows = START_S - utc(2024, 6, 3) + np.arange(-30.0, FRAMES + 30)
    write_icartt(folder / "CAMPAIGN_MetNav_ER2_20240603_R0.ict", rows, navigation(len(rows)))
    return folder


@pytest.mark.parametrize(
    ("kind", "channels"), [("tif16", ["image"]), ("png", ["blue", "green", "red"]), ("jpg", ["image"])]
)
def test_a_campaign_goes_through_init(tmp_path: Path, capsys: Any, kind: str, channels: list[str]) -> None:
    folder = write_campaign(tmp_path / "campaign", kind)
    assert main(["init", str(tmp_path / "mine"), "--json", "--from", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problem"] is None
    ((name, files),) = found["flights"].items()
    assert files["camera"] == str(folder / "cam" / f"*.{kind.removesuffix('16')}")
    assert files["lidar"] == str(folder / "lidar_20240603.nc")
    assert files["navigation"].endswith(".ict")
    config = load_config(tmp_path / "mine" / "config.json")
    assert config.data.flights is not None
    assert sorted(config.data.camera.channels) == channels
    flight = read_flight(name, config.data.flights[name], config.data, config.target)
    np.testing.assert_array_equal(flight.time_s, START_S + np.arange(FRAMES))
    assert np.isfinite(flight.label).sum() == flight.counts["frames labelled"] > 20
    assert flight.sun_angles_deg is not None
    np.testing.assert_allclose(flight.sun_angles_deg[0], [40.03, 60.03], atol=1e-6)
    np.testing.assert_allclose(flight.latitude_deg[0], 34.03)
    table = build_table([flight], {name: np.arange(FRAMES)}, config.data)
    assert table.radiance.shape == (FRAMES, SIDE, SIDE, len(channels))
    if kind == "tif16":
        depth = strip()
        expected = as_camera(kind, (depth / (depth + 7))[5 : 5 + SIDE])
        np.testing.assert_array_equal(table.radiance[5, ..., 0], expected.astype("f4"))
    assert not table.bad.any()


def test_flights_in_folders_are_found_by_the_pattern_of_their_pictures(tmp_path: Path) -> None:
    """Pictures in a folder below that of the flight: their pattern stands for one camera."""
    for name in "ab":
        write_campaign(tmp_path / "flights" / name, "jpg")
    config = tiny_config(tmp_path)
    files = {"camera": ("cam/IMG_*.jpg",), "lidar": ("lidar_*.nc",)}
    update = {role: getattr(config.data, role).model_copy(update={"files": files[role]}) for role in files}
    found = find_flights(tmp_path / "flights", config.data.model_copy(update=update))
    pattern = Path("cam") / "IMG_*.jpg"
    assert {name: one.camera for name, one in found.items()} == {
        name: str(tmp_path / "flights" / name / pattern) for name in "ab"
    }
