"""Images from the files: packing, slicing, channels, bad frames, and the same numbers in memory and mapped."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from flight_files import FRAMES, SIGNAL, START_S, camera_file, images, tiny_config, write_flight

from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers import frames as frames_module
from cloudml_tf.data.readers.flights import Flight, load_flight
from cloudml_tf.data.readers.folders import flight_files
from cloudml_tf.data.readers.frames import FrameTable, build_table, camera_fingerprint, read_frames
from cloudml_tf.utils.errors import DataError

EVERY = np.arange(FRAMES)


def load(folder: Path, config: Config) -> Flight:
    return load_flight(folder.name, flight_files(folder, config.data), config.data, config.target)


def table_of(folder: Path, wanted: np.ndarray = EVERY, **camera: Any) -> FrameTable:
    """The table of one flight's wanted frames, with settings of data.camera."""
    config = tiny_config(folder, {f"data.camera.{key}": value for key, value in camera.items()})
    return build_table([load(folder, config)], {folder.name: wanted}, config.data)


# --- numbers


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({}, 1.0), ({"scale_factor": 0.5}, 0.5), ({"scale_factor": np.array([0.5]), "add_offset": -2.0}, 0.5)],
)
def test_packed_integers_are_unpacked(tmp_path: Path, attributes: dict[str, Any], expected: float) -> None:
    folder = write_flight(tmp_path, attributes={SIGNAL: attributes})
    table = table_of(folder)
    assert table.radiance.dtype == np.float32
    offset = attributes.get("add_offset", 0.0)
    np.testing.assert_allclose(table.radiance[..., 0], images() * expected + offset, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("uint16", 65535),
        ("int16", -32768),
        ("int16", -9999),
        ("int32", -(2**31) + 1),
        ("float32", -1e30),
        ("f8", 1e300),
    ],
)
def test_fill_values_make_a_frame_bad(tmp_path: Path, dtype: str, fill: float) -> None:
    """-2**31 + 1 is rounded in float32: the fill must be found before the cast."""
    signal = images().astype(dtype)
    signal[4, 2, 3] = fill
    attributes = {"scale_factor": 1e-3} if fill == -9999 else {"scale_factor": 1e-3, "_FillValue": signal[4, 2, 3]}
    table = table_of(write_flight(tmp_path, camera={SIGNAL: signal}, attributes={SIGNAL: attributes}))
    assert np.flatnonzero(table.bad).tolist() == [4]
    assert np.isnan(table.radiance[4, 2, 3, 0])
    assert np.isfinite(np.delete(table.radiance, 4, axis=0)).all()


def test_two_channels_keep_the_order_of_the_configuration(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, camera={"Product/Second": images(seed=9)}, attributes={SIGNAL: {}})
    table = table_of(folder, channels=["Product/Second", SIGNAL])
    np.testing.assert_array_equal(table.radiance, np.stack([images(seed=9), images()], axis=-1))


def test_the_swath_slice_comes_before_the_mean_over_squares(tmp_path: Path) -> None:
    signal = np.zeros((FRAMES, 8, 10), "uint16")
    # Rows 1 to 5 and columns 2 to 9 remain; two 2 x 3 blocks of squares of 2, the odd last row and column are cut.
    signal[:, 1:5, 2:8] = [[1, 3, 10, 20, 0, 8], [5, 7, 30, 40, 8, 0], [2, 2, 4, 4, 6, 6], [2, 2, 4, 4, 6, 6]]
    folder = write_flight(tmp_path, camera={SIGNAL: signal}, attributes={SIGNAL: {}})
    table = table_of(folder, rows=[1, 6], columns=[2, 9], downsample=2)
    np.testing.assert_array_equal(table.radiance[7, ..., 0], [[4, 25, 4], [2, 4, 6]])


def test_only_wanted_frames_are_in_the_table_and_found_by_index(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", attributes={SIGNAL: {}})
    wanted = np.array([3, 4, 5, 20, 39])
    table = table_of(folder, wanted)
    np.testing.assert_array_equal(table.radiance[..., 0], images()[wanted])
    np.testing.assert_array_equal(table.index("a", np.array([[20, 39], [3, 4]])), [[3, 4], [0, 1]])


def test_frames_follow_time_where_the_file_is_unsorted(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(FRAMES)
    folder = write_flight(tmp_path, frame_s=START_S + order, chunks=7, attributes={SIGNAL: {}})
    np.testing.assert_array_equal(table_of(folder).radiance[..., 0], images()[np.argsort(order)])


# --- bad frames


def test_black_flat_saturated_and_nan_frames_are_bad(tmp_path: Path) -> None:
    signal = images().astype("float32")
    signal[1] = 0.0
    signal[2] = 77.0
    signal[3, 0, 0] = np.nan
    signal[5, :, :6] = np.inf  # 60 % of the pixels
    signal[6, 0, 0] = -np.inf
    table = table_of(write_flight(tmp_path, camera={SIGNAL: signal}))
    assert np.flatnonzero(table.bad).tolist() == [1, 2, 3, 5, 6]


def test_the_top_of_an_integer_type_is_saturated(tmp_path: Path) -> None:
    signal = images()
    signal[:, :, 9] = 50_000  # a bright scene: without one, pixels at the top are fills
    signal[1, :, :5] = 65535  # half of the pixels: not more than bad_pixel_fraction
    signal[2, :, :6] = 65535
    folder = write_flight(tmp_path, camera={SIGNAL: signal})
    assert np.flatnonzero(table_of(folder).bad).tolist() == [2]
    assert np.flatnonzero(table_of(folder, bad_pixel_fraction=0.4).bad).tolist() == [1, 2]
    assert np.flatnonzero(table_of(folder, bad_pixel_fraction=1.0).bad).tolist() == []


def test_saturation_can_be_set_in_units_of_radiance(tmp_path: Path) -> None:
    signal = np.full((FRAMES, 8, 10), 2000, "uint16")
    signal[:, 0, 0] = 1000  # no frame is flat
    signal[9] = signal[9] + 5000
    folder = write_flight(tmp_path, camera={SIGNAL: signal})
    assert np.flatnonzero(table_of(folder, saturation=6.0).bad).tolist() == [9]  # 7000 counts of 1e-3


def test_one_bad_channel_makes_a_frame_bad(tmp_path: Path) -> None:
    second = images(seed=9)
    second[:, :, 9] = 50_000
    second[8, :, :6] = 65535
    folder = write_flight(tmp_path, camera={"Product/Second": second})
    assert np.flatnonzero(table_of(folder, channels=[SIGNAL, "Product/Second"]).bad).tolist() == [8]


# --- reading in pieces


@pytest.mark.parametrize("seed", range(6))
def test_slabs_of_any_size_give_every_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chunk = int(rng.integers(1, 9))
    wanted = np.sort(rng.choice(FRAMES, rng.integers(1, FRAMES + 1), replace=False))
    config = tiny_config(tmp_path)
    flight = load(write_flight(tmp_path, chunks=chunk, attributes={SIGNAL: {}}), config)
    monkeypatch.setattr(frames_module, "SLAB_BYTES", int(rng.integers(1, 3000)))
    slabs = list(read_frames(flight, wanted, config.data.camera))
    np.testing.assert_array_equal(np.sort(np.concatenate([place for place, _, _ in slabs])), np.arange(len(wanted)))
    for place, radiance, _ in slabs:
        np.testing.assert_array_equal(radiance[..., 0], images()[wanted[place]])


@pytest.mark.parametrize("slab_frames", [8, 1000])
@pytest.mark.parametrize("sorted_file", [True, False])
def test_no_chunk_is_read_twice_and_far_apart_frames_are_not_bridged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slab_frames: int, sorted_file: bool
) -> None:
    order = EVERY if sorted_file else np.random.default_rng(0).permutation(FRAMES)
    config = tiny_config(tmp_path)
    flight = load(write_flight(tmp_path, frame_s=START_S + order, chunks=4), config)
    read: list[tuple[int, int]] = []
    original = h5py.Dataset.__getitem__

    def watched(self: h5py.Dataset, key: Any, *rest: Any, **more: Any) -> Any:
        if self.name == f"/{SIGNAL}":
            read.append((key[0].start, key[0].stop))
        return original(self, key, *rest, **more)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watched)
    monkeypatch.setattr(frames_module, "SLAB_BYTES", slab_frames * 8 * 10 * 2)
    rows = np.array([2, 5, 6, 9, 10, 11, 13, 34, 35])
    list(read_frames(flight, np.flatnonzero(np.isin(flight.row, rows)), config.data.camera))
    chunks = [number for first, end in read for number in range(first // 4, (end - 1) // 4 + 1)]
    assert chunks == [0, 1, 2, 3, 8]  # each once, in order; 4 to 7 hold no wanted frame
    assert max(end - first for first, end in read) <= slab_frames + 4


def test_a_mapped_table_has_the_same_numbers_and_is_kept(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a", chunks=4)
    with h5py.File(camera_file(folder), "r+") as file:
        file[SIGNAL][6] = 0
    in_memory, mapped = (tiny_config(tmp_path, {"data.memory_gb": size}) for size in (4.0, 1e-9))
    tables, steps = [], []
    for config in (in_memory, mapped, mapped):
        seen: list[int] = []
        flight = load(folder, config)
        tables.append(build_table([flight], {"a": EVERY}, config.data, lambda done, _, to=seen: to.append(done)))
        steps.append(len(seen))
    assert [count > 0 for count in steps] == [True, True, False]  # the third finds the file of the second
    assert isinstance(tables[1].radiance, np.memmap)
    for table in tables[1:]:
        np.testing.assert_array_equal(table.radiance, tables[0].radiance)
        np.testing.assert_array_equal(table.bad, EVERY == 6)
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(names) == 2
    assert not [name for name in names if name.startswith(".")]


def test_a_mapped_table_is_not_reused_for_other_settings_or_a_changed_file(tmp_path: Path) -> None:
    folder = write_flight(tmp_path / "a")
    changes: dict[str, Any] = {"data.memory_gb": 1e-9}
    config = tiny_config(tmp_path, changes)
    build_table([load(folder, config)], {"a": EVERY}, config.data)
    sliced = tiny_config(tmp_path, {**changes, "data.camera.rows": [0, 4]})
    assert build_table([load(folder, sliced)], {"a": EVERY}, sliced.data).radiance.shape == (40, 4, 10, 1)
    with h5py.File(camera_file(folder), "r+") as file:
        file[SIGNAL][0, 0, 0] = 1234
    found = build_table([load(folder, config)], {"a": EVERY}, config.data).radiance[0, 0, 0, 0]
    assert found == pytest.approx(1.234)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    flights = [load(write_flight(tmp_path / name, seed=seed), config) for seed, name in enumerate("ab")]
    seen: list[tuple[int, int]] = []
    build_table(flights, dict.fromkeys("ab", EVERY), config.data, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (80, 80)


def test_a_file_damaged_inside_is_named(tmp_path: Path) -> None:
    folder = write_flight(tmp_path, attributes={SIGNAL: {}})
    path = camera_file(folder)
    with h5py.File(path, "r+") as file:
        del file[SIGNAL]
        file.create_dataset(SIGNAL, data=images(), chunks=(4, 8, 10), compression="gzip", fletcher32=True)
        place = file[SIGNAL].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    for byte in range(place.byte_offset, place.byte_offset + place.size):
        content[byte] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"Product/Signal' cannot be read, the file is damaged .*copy it again"
    ) as error:
        table_of(folder)
    assert str(path) in str(error.value)


def test_the_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    a, b, same = (write_flight(tmp_path / name, seed=seed) for seed, name in ((0, "a"), (1, "b"), (0, "same")))
    assert camera_fingerprint(camera_file(a)) != camera_fingerprint(camera_file(b))
    assert camera_fingerprint(camera_file(a)) == camera_fingerprint(camera_file(same))
