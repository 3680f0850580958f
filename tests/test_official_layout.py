"""The files of the seed's own campaign, as its archive names and lays them out, without a word of configuration."""

import calendar
import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from flight_files import DAYS, DEPTH, FRAME_TIME, LATITUDE, SIGNAL, write_flight
from icartt_files import navigation, write_icartt

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config
from cloudml_tf.data.readers.flights import load_flight

FRAMES, SIDE = 240, 12
DAYS_OF_FLIGHT = ((10, 18), (10, 22), (11, 13))
QUICK = [
    "training.max_epochs=1", "model.widths=[4,6]", "model.footprint=5", "model.encoder_features=8", "model.heads=2",
    "model.head_units=8", "output.export=false", "output.report=false", "evaluation.baselines=false",
]  # fmt: skip


def strip(seed: int) -> np.ndarray:
    """Optical depth along a strip of cloud, (FRAMES + SIDE, SIDE)."""
    rng = np.random.default_rng(seed)
    waves = np.hypot(np.fft.fftfreq(FRAMES + SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    spectrum = np.fft.rfft2(rng.normal(size=(FRAMES + SIDE, SIDE))) / (0.02 + waves) ** 1.7
    field = np.fft.irfft2(spectrum, s=(FRAMES + SIDE, SIDE))
    return np.exp(0.4 * (field - field.mean()) / field.std() - 0.2)


def write_campaign(root: Path) -> Path:
    for seed, (month, day) in enumerate(DAYS_OF_FLIGHT):
        stamp, start = f"2024{month:02d}{day:02d}", calendar.timegm((2024, month, day, 18, 0, 0))
        depth = strip(seed)
        counts = np.stack([depth[n : n + SIDE] / (depth[n : n + SIDE] + 7) for n in range(FRAMES)]) * 60_000
        seen = np.arange(0, FRAMES, 2)
        folder = write_flight(
            root / stamp,
            frame_s=start + np.arange(FRAMES),
            profile_s=start + seen,
            half_span_s=1.0,
            label=depth[seen + SIDE // 2, SIDE // 2],
            camera={SIGNAL: counts.astype("u2")},
            lidar_name=f"WHyMSIE_CPL_L2Lay_ER2_{stamp}_R0.h5",
        )
        (folder / "NAV_20240603.h5").unlink()
        (folder / "TEST_L1B_20240603.h5").rename(folder / f"WHyMSIE_IRAI_L1B_{stamp}.h5")
        with h5py.File(folder / f"WHyMSIE_CPL_L2Lay_ER2_{stamp}_R0.h5", "r+") as file:
            file["metadata_parameters/File_Year"] = np.array([2024])
            place = file[LATITUDE][()]
            place[5] = 0.0  # marks an invalid profile
            file[LATITUDE][...] = place
        second = 18 * 3600.0 + np.arange(-5, FRAMES + 5)
        write_icartt(
            folder / f"WHyMSIE_MetNav_ER2_{stamp}_R0.ict",
            second,
            navigation(len(second)),
            date=f"2024, {month:02d}, {day:02d}, 2024, 11, 20",
        )
    return root


def test_init_check_and_train_without_a_word_of_configuration(tmp_path: Path, capsys: Any) -> None:
    root = write_campaign(tmp_path / "data")
    assert main(["init", str(tmp_path / "mine"), "--from", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problem"] is None
    assert len(found["flights"]) == 3
    config = load_config(tmp_path / "mine" / "config.json")
    roles = {role["role"]: role["dataset"] for role in found["roles"]}
    assert roles["camera.channels"] == SIGNAL
    assert (roles["lidar.optical_depth"], roles["lidar.time"]) == (DEPTH, DAYS)
    assert roles["camera.time"] == FRAME_TIME
    assert roles["navigation.solar_zenith"] == "Solar_Zenith_Angle"
    assert main(["check", str(tmp_path / "mine" / "config.json"), "--no-probe"]) == 0
    from cloudml_tf.data.sources import available_flights

    name, files = next(iter(available_flights(config).items()))
    flight = load_flight(name, files, config.data, config.target)
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(flight.time_s[0])) == "2024-10-18 18:00:00"
    assert flight.counts["profiles without a position"] == 1
    assert flight.sun_angles_deg is not None
    np.testing.assert_allclose(flight.sun_angles_deg[0], [40.005, 60.005], atol=1e-3)
    settings = [part for text in QUICK for part in ("--set", text)]
    assert main(["train", str(tmp_path / "mine" / "config.json"), *settings, "--run-dir", str(tmp_path / "run")]) == 0
