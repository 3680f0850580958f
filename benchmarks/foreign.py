"""Twelve flights of another simulation, in a file layout of its own: `python benchmarks/foreign.py --out FOLDER`.

A model is bought for flights that look different from one to the next. Here each flight has its own gain (12 %, one
standard deviation) and offset, its own sun, its own clouds (cover, thickness, size, how patchy) and its own patchy
surface; the lens darkens the corners by a fifth. Nothing is shared with `cloudml_tf.data.simulation`: clouds are cut
out of lognormal fields of a power law, light is reflected by a two-stream cloud over a surface, smeared by scattering
and brighter on sunlit slopes, and the lidar sees what lies within its noise and saturation.

One HDF5 file for each instrument and flight: `cam_NAME.h5` and `lid_NAME.h5`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

FLIGHTS = 12
FRAMES, SIDE = 1200, 20  # of a flight; pixels of a frame
PER_FRAME = 3  # pixels that the aircraft moves between two frames
SOLAR = (1520.0, 960.0)  # W m-2 um-1, of the two bands
SEA, LAND = (0.05, 0.03), (0.07, 0.30)  # albedo in the two bands
ASYMMETRY = 0.85
SATURATION = 4.0  # optical depth that the beam still comes through
START = 1_700_000_000.0  # seconds since 1970


@dataclass(frozen=True)
class Weather:
    """What is constant over one flight and differs between flights."""

    gain: float
    offset: float  # in parts of the mean radiance of a bright cloud
    sun_zenith_deg: float
    sun_azimuth_deg: float  # against the flight's direction
    cover: float  # share of the track below cloud
    thickness: float  # median optical depth of what is cloudy
    spread: float  # of its logarithm
    size: float  # pixels, of the largest clouds
    land: float  # share of the surface
    tone: float  # factor on the albedo of the surface
    label_interval: int  # frames


def weather_of(random: np.random.Generator) -> Weather:
    """A flight's own weather and camera."""
    return Weather(
        gain=float(np.exp(0.12 * random.normal())),
        offset=float(0.02 * random.normal()),
        sun_zenith_deg=float(random.uniform(20.0, 58.0)),
        sun_azimuth_deg=float(random.uniform(-180.0, 180.0)),
        cover=float(random.uniform(0.6, 0.95)),
        thickness=float(np.exp(random.normal(np.log(0.9), 0.35))),
        spread=float(random.uniform(0.5, 0.9)),
        size=float(np.exp(random.uniform(np.log(150.0), np.log(500.0)))),
        land=float(random.uniform(0.1, 0.9)),
        tone=float(np.exp(0.5 * random.normal())),
        label_interval=int(random.integers(4, 7)),
    )


def field(random: np.random.Generator, shape: tuple[int, int], size: float, slope: float) -> np.ndarray:
    """A normal field with a power law below `size` pixels, of mean 0 and standard deviation 1."""
    wide = (shape[0], max(shape[1], int(2 * size)))  # so that no cloud meets its own other side
    row, column = np.meshgrid(np.fft.fftfreq(wide[0]), np.fft.rfftfreq(wide[1]), indexing="ij")
    power = (np.hypot(row, column) ** 2 + size**-2.0) ** (-slope / 2)
    noise = np.fft.rfft2(random.normal(size=wide))
    found = np.fft.irfft2(noise * np.sqrt(power), s=wide)[:, : shape[1]]
    return (found - found.mean()) / found.std()


def smeared(values: np.ndarray, width: float) -> np.ndarray:
    """A Gaussian mean over `width` pixels, along both axes."""
    row, column = np.meshgrid(np.fft.fftfreq(values.shape[0]), np.fft.rfftfreq(values.shape[1]), indexing="ij")
    kernel = np.exp(-2.0 * (np.pi * width) ** 2 * (row**2 + column**2))
    return np.fft.irfft2(np.fft.rfft2(values) * kernel, s=values.shape)


def optical_depth(random: np.random.Generator, weather: Weather, shape: tuple[int, int]) -> np.ndarray:
    """Clouds over the strip: a lognormal field, cut where it is clear."""
    normal = field(random, shape, weather.size, 3.4)
    edge = np.quantile(normal, 1.0 - weather.cover)
    inside = np.clip((normal - edge) / 0.5, 0.0, 1.0)  # thin at the edges
    return inside * weather.thickness * np.exp(weather.spread * normal)


def reflectance(cloud: np.ndarray, surface: np.ndarray, weather: Weather) -> np.ndarray:
    """Of a cloud over a surface, two streams, with light that is smeared and slopes that face the sun."""
    smooth = smeared(cloud, 1.5)
    scaled = (1.0 - ASYMMETRY) * smooth
    mu = np.cos(np.deg2rad(weather.sun_zenith_deg))
    own = scaled / (scaled + 2.0 * mu)
    down = 2.0 * mu / (scaled + 2.0 * mu)
    up = 2.0 / (scaled + 2.0)
    lit = own + down * surface * up / (1.0 - surface * scaled / (scaled + 2.0))
    azimuth = np.deg2rad(weather.sun_azimuth_deg)
    along, across = np.gradient(smooth)
    slope = np.tan(np.deg2rad(weather.sun_zenith_deg)) * (np.cos(azimuth) * along + np.sin(azimuth) * across)
    return lit * (1.0 - 0.25 * np.tanh(slope))


def flight(random: np.random.Generator, weather: Weather) -> tuple[np.ndarray, np.ndarray]:
    """Radiance (frames, side, side, 2) and the optical depth under the aircraft (frames,)."""
    shape = (FRAMES * PER_FRAME + SIDE, SIDE)
    cloud = optical_depth(random, weather, shape)
    ground = field(random, shape, 80.0, 3.0)
    land = ground > np.quantile(ground, 1.0 - weather.land)
    tone = 1.0 + 0.25 * field(random, shape, 30.0, 2.5)
    row, column = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    lens = 1.0 - 0.2 * (row**2 + column**2) / (2 * ((SIDE - 1) / 2) ** 2)
    start = PER_FRAME * np.arange(FRAMES)
    rows = start[:, None] + np.arange(SIDE)[::-1]  # the first row looks ahead
    bands = []
    for band, solar in enumerate(SOLAR):
        surface = np.clip(np.where(land, LAND[band], SEA[band]) * weather.tone * tone, 0.005, 0.8)
        scale = solar * np.cos(np.deg2rad(weather.sun_zenith_deg)) / np.pi
        light = weather.gain * scale * (reflectance(cloud, surface, weather) + weather.offset)
        frames = light[rows] * lens
        noise = 0.006 * scale * random.normal(size=frames.shape) + 0.01 * frames * random.normal(size=frames.shape)
        bands.append(np.maximum(frames + noise, 0.01 * scale))
    middle = SIDE // 2
    seen = cloud[rows[:, middle], middle]
    return np.stack(bands, axis=-1).astype("float32"), seen


def lidar(random: np.random.Generator, seen: np.ndarray, interval: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames at which the lidar reports, and what it reports: NaN where it saw no layer or did not come through."""
    at = np.arange(random.integers(interval), len(seen), interval)
    found = seen[at] * np.exp(0.06 * random.normal(size=len(at))) + 0.02 * random.normal(size=len(at))
    return at, np.where((found > 0.08) & (seen[at] < SATURATION), found, np.nan)


def write_flight(home: Path, flight_name: str, seed: int) -> None:
    """The camera's and the lidar's file of a flight."""
    random = np.random.default_rng(seed)
    weather = weather_of(random)
    radiance, seen = flight(random, weather)
    at, depth = lidar(random, seen, weather.label_interval)
    time = START + 86_400.0 * seed + np.arange(FRAMES)
    with h5py.File(home / f"cam_{flight_name}.h5", "w") as file:
        for band, name in enumerate(("L670", "L865")):
            images = file.create_dataset(name, data=radiance[..., band], chunks=(50, SIDE, SIDE))
            images.attrs.update({"long_name": "spectral radiance", "units": "W m-2 sr-1 um-1"})
        _series(file, "epoch", time, "seconds since 1970-01-01 00:00:00 UTC", "time of the exposure")
        _series(file, "sza", np.full(FRAMES, weather.sun_zenith_deg), "degree", "solar zenith angle")
        _series(file, "raa", np.full(FRAMES, weather.sun_azimuth_deg), "degree", "solar azimuth relative to heading")
    with h5py.File(home / f"lid_{flight_name}.h5", "w") as file:
        _series(file, "epoch", time[at], "seconds since 1970-01-01 00:00:00 UTC", "time of the profile")
        _series(file, "cod", depth, "1", "cloud optical depth")


def _series(file: h5py.File, name: str, values: np.ndarray, units: str, long_name: str) -> None:
    file.create_dataset(name, data=values).attrs.update({"units": units, "long_name": long_name})


def write_campaign(home: Path, seed: int, flights: int = FLIGHTS) -> list[str]:
    """All flights; their names."""
    home.mkdir(parents=True, exist_ok=True)
    names = [f"f{number:02d}" for number in range(1, flights + 1)]
    for number, name in enumerate(names, 1):
        write_flight(home, name, 1000 * seed + number)
    return names


def main() -> None:
    """Write the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--flights", type=int, default=FLIGHTS)
    args = parser.parse_args()
    print(" ".join(write_campaign(args.out, args.seed, args.flights)))


if __name__ == "__main__":
    main()
