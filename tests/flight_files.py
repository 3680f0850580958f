"""Tiny flights as real instrument files, and a configuration for them. A test changes only what it is about.

    folder = write_flight(tmp_path / "a", lidar={DEPTH: slots([0.5], [0.2, 0.3]), OPACITY: None})

`camera`, `lidar` and `navigation` replace datasets by path, add new ones, or leave one out with None.
"""

import calendar
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.schema import Config

FILL = -9999.0
SIGNAL, FRAME_TIME = "Product/Signal", "Time/TimeUTC"
LAYERS = "layer_descriptor/"
DAYS = LAYERS + "Profile_Decimal_Julian_Day"
DEPTH = LAYERS + "Feature_Optical_Depth_532"
BASE, TOP = LAYERS + "Layer_Base_Altitude", LAYERS + "Layer_Top_Altitude"
KIND, NUMBER, OPACITY = LAYERS + "Feature_Type", LAYERS + "Number_Layers", LAYERS + "Opacity"
SURFACE, DEM = LAYERS + "Lidar_Surface_Altitude", LAYERS + "DEM_Surface_Altitude"
LATITUDE, LONGITUDE = "geolocation/CPL_Latitude", "geolocation/CPL_Longitude"
ZENITH, AZIMUTH, HEADING = "nav/solarZenith", "nav/sunAzGrd", "nav/heading"

START_S = float(calendar.timegm((2024, 6, 3, 12, 0, 0)))  # a leap year
FRAMES, HEIGHT, WIDTH = 40, 8, 10
PROFILE_S = START_S + np.arange(2.0, FRAMES, 4.0)
LABEL = np.random.default_rng(7).uniform(0.3, 1.8, len(PROFILE_S))  # of a flight whose lidar file looks otherwise


def utc(*moment: int) -> float:
    """Year, month, day, hour, minute, second to seconds since 1970."""
    return datetime.datetime(*moment, tzinfo=datetime.UTC).timestamp()  # type: ignore[misc, arg-type]


def slots(*profiles: list[float]) -> np.ndarray:
    """Layer values of each profile, top layer first, in ten slots: (P, 10) with -9999 where there is no layer."""
    values = np.full((len(profiles), 10), FILL)
    for row, layers in zip(values, profiles, strict=True):
        row[: len(layers)] = layers
    return values


def day_of_year(time_s: np.ndarray, year: int) -> np.ndarray:
    """Seconds since 1970 to the lidar's clock."""
    return 1.0 + (np.asarray(time_s) - calendar.timegm((year, 1, 1, 0, 0, 0))) / 86400.0


def put(file: h5py.File, name: str, values: Any, **attributes: Any) -> None:
    """Write a dataset anew."""
    if name in file:
        del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def strip_of_cloud(frames: int, side: int, seed: int = 0) -> np.ndarray:
    """Optical depth along a strip of cloud, (frames + side, side)."""
    rng = np.random.default_rng(seed)
    waves = np.hypot(np.fft.fftfreq(frames + side)[:, None], np.fft.rfftfreq(side)[None, :])
    field = np.fft.rfft2(rng.normal(size=(frames + side, side))) / (0.02 + waves) ** 1.7
    field = np.fft.irfft2(field, s=(frames + side, side))
    return np.asarray(np.exp(0.5 * (field - field.mean()) / field.std() - 0.3))


def images(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """(frames, height, width) counts, none of them black or saturated."""
    return np.random.default_rng(seed).integers(1000, 9000, (frames, height, width)).astype("uint16")


def write_flight(
    folder: Path,
    *,
    seed: int = 0,
    frame_s: np.ndarray | None = None,
    profile_s: np.ndarray | None = None,
    label: np.ndarray | None = None,
    half_span_s: float = 2.0,
    year: int = 2024,
    camera: Mapping[str, Any] | None = None,
    lidar: Mapping[str, Any] | None = None,
    navigation: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    chunks: int | None = None,
    lidar_name: str | None = None,
) -> Path:
    """Write the three files of one flight and return its folder.

    Args:
        seed: of images and labels; another seed is another flight.
        frame_s: (N,) frame times in s since 1970; 40 at 1 Hz by default.
        profile_s: (P,) middle times of the profiles; one each 4 s by default.
        label: (P,) optical depth of the only layer; its base is 1 + label km and its top 0.5 km higher.
        half_span_s: from a profile's middle to its start and end.
        year: of the lidar's day-of-year clock and file name.
        camera, lidar, navigation: datasets to replace or add by path, or None to leave one out.
        attributes: attributes by dataset path, in place of the default ones.
        chunks: frames a chunk of the image data.
        lidar_name: the lidar's file name.
    """
    rng = np.random.default_rng(seed)
    frame_s = START_S + np.arange(FRAMES) if frame_s is None else np.asarray(frame_s)
    profile_s = START_S + np.arange(2.0, FRAMES, 4.0) if profile_s is None else np.asarray(profile_s)
    label = rng.uniform(0.3, 1.8, len(profile_s)) if label is None else np.asarray(label, "float64")
    count, total = len(profile_s), len(frame_s)
    one, place = np.ones(count), np.linspace(0.0, 0.1, count)[:, None] + [-0.001, 0.0, 0.001]
    spans = np.stack([profile_s - half_span_s, profile_s, profile_s + half_span_s], axis=1)
    as_layer = slots(*([value] for value in label))
    contents: dict[str, dict[str, Any]] = {
        "camera": {SIGNAL: images(total, seed=seed), FRAME_TIME: frame_s},
        "lidar": {
            DAYS: day_of_year(spans, year),
            DEPTH: as_layer,
            BASE: np.where(as_layer == FILL, FILL, 1.0 + as_layer),
            TOP: np.where(as_layer == FILL, FILL, 1.5 + as_layer),
            KIND: np.where(as_layer == FILL, FILL, 3).astype("int32"),
            NUMBER: one.astype("int32"),
            OPACITY: np.zeros(count, "int8"),
            SURFACE: 10.0 * one,
            DEM: 0.0 * one,
            LATITUDE: 30.0 + place,
            LONGITUDE: -120.0 + place,
        },
        "navigation": {ZENITH: np.full(total, 40.0), AZIMUTH: np.full(total, 150.0), HEADING: np.full(total, 90.0)},
    }
    names = {
        "camera": "TEST_L1B_20240603.h5",
        "lidar": lidar_name or f"CPL_L2_V1-02_01kmLay_test_03jun{year % 100:02d}.hdf5",
        "navigation": "NAV_20240603.h5",
    }
    written_attributes = {SIGNAL: {"scale_factor": 1e-3}, **(attributes or {})}
    folder.mkdir(parents=True, exist_ok=True)
    changes = {"camera": camera or {}, "lidar": lidar or {}, "navigation": navigation or {}}
    for role, name in names.items():
        with h5py.File(folder / name, "w") as file:
            for path, values in {**contents[role], **changes[role]}.items():
                if values is None:
                    continue
                values = np.asarray(values)
                cut = (chunks, *values.shape[1:]) if chunks and values.ndim == 3 else None
                file.create_dataset(path, data=values, chunks=cut).attrs.update(written_attributes.get(path, {}))
    return folder


def camera_file(folder: Path) -> Path:
    """The camera file of a written flight."""
    return next(folder.glob("*_L1B_*"))


def lidar_file(folder: Path) -> Path:
    """The lidar file of a written flight."""
    return next(folder.glob("CPL_*"))


def navigation_file(folder: Path) -> Path:
    """The navigation file of a written flight."""
    return next(folder.glob("NAV_*"))


def write_three_flights(root: Path, **changes: Any) -> Path:
    """Flights a, b and c below `root`; `changes` go to all of them. Returns `root`."""
    for seed, name in enumerate("abc"):
        write_flight(root / name, **{"seed": seed, **changes})
    return root


def tiny_content(home: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The dictionary of `tiny_config`, for tests that write it to a file."""
    content: dict[str, Any] = {
        "experiment_name": "tiny",
        "split": {"kind": "flights", "train": ["a"], "val": ["b"], "test": ["c"]},
        "data": {"path": str(home / "flights"), "cache": str(home / "cache")},
        "model": {"widths": [4, 6], "footprint": 3, "encoder_features": 8, "heads": 2, "head_units": 8},
        "training": {"max_epochs": 2, "batch_size": 8},
        "evaluation": {"bootstrap_samples": 100},
        "output": {"runs": str(home / "runs"), "savedmodels": str(home / "savedmodels")},
    }
    for path, value in (changes or {}).items():
        *sections, last = path.split(".")
        place = content
        for name in sections:
            place = place.setdefault(name, {})
        place[last] = value
    return content


def tiny_config(home: Path, changes: Mapping[str, Any] | None = None) -> Config:
    """A configuration for flights a, b and c in `home`/flights, with outputs in `home`.

    `changes` maps dotted paths to values: {"data.camera.downsample": 2}.
    """
    return parse_config(tiny_content(home, changes))


def write_config(home: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """The same as a JSON file."""
    path = home / "tiny.json"
    path.write_text(json.dumps(tiny_content(home, changes)), encoding="utf-8")
    return path
