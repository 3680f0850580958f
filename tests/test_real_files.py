"""Files that other people made with other instruments: read rightly, or refused with the true cause."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.config.data import Lidar, Navigation, Target
from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.discovery.mapping import Mapping, map_files
from cloudml_tf.data.readers import clocks, hdf5
from cloudml_tf.data.readers.lidar import read_profiles

REAL = Path(os.environ.get("CLOUDML_SHARED", Path(__file__).parents[2] / "shared")) / "data/real"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="needs the real files: set CLOUDML_SHARED")


def mapped(name: str) -> Mapping:
    return map_files([read_content(REAL / name)])


def shown(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_s))


@pytest.mark.parametrize(
    ("name", "key", "first", "last", "profiles", "labels", "low_km", "high_km"),
    [
        (
            "pollynet_cloudinfo_20190322.nc",
            "base",
            "2019-03-22 18:00:00",
            "2019-03-22 23:59:30",
            720,
            161,
            11.66,
            12.33,
        ),
        ("pollynet_cloudinfo_20190322.nc", "top", "2019-03-22 18:00:00", "2019-03-22 23:59:30", 720, 161, 11.83, 12.49),
        ("cl61_live_20210829_104420.nc", "base", "2021-08-29 10:43:20", "2021-08-29 10:44:15", 12, 12, 1.478, 1.483),
        ("eprofile_L2_A20210908.nc", "base", "2021-09-07 23:50:00", "2021-09-08 23:45:00", 288, 84, 1.033, 2.788),
    ],
)
def test_labels(
    name: str, key: str, first: str, last: str, profiles: int, labels: int, low_km: float, high_km: float
) -> None:
    section = mapped(name).sections["lidar"]
    target = Target.model_validate({"name": f"cloud_{key}_km", "minimum": None, "maximum": None})
    found = read_profiles(REAL / name, Lidar(**section), target)
    known = found.label[np.isfinite(found.label)]
    assert (len(found.label), len(known)) == (profiles, labels)
    assert (shown(found.middle_s[0]), shown(found.middle_s[-1])) == (first, last)
    assert (known.min(), known.max()) == pytest.approx((low_km, high_km), abs=0.006)


def test_the_lowest_layer_may_stand_first() -> None:
    section = mapped("eprofile_L2_A20210908.nc").sections["lidar"]
    target = Target.model_validate({"name": "cloud_base_km", "minimum": None, "maximum": None})
    with hdf5.open_file(REAL / "eprofile_L2_A20210908.nc") as file:
        heights = hdf5.read(file, "cloud_base_height", 2) / 1e3
    for layer, pick in (("top", np.nanmax), ("bottom", np.nanmin)):
        found = read_profiles(REAL / "eprofile_L2_A20210908.nc", Lidar(**section, layer=layer), target).label
        known = np.isfinite(found)
        np.testing.assert_allclose(found[known], [pick(row) for row in heights[known]])


@pytest.mark.parametrize(
    ("name", "rows", "first", "last"),
    [
        ("IMPACTS_HIWRAP_L1B_RevC_20200201_subset.h5", 31163, "2020-02-01 ", "2020-02-01 "),
        ("marnavM1.a1.20180201.000000.nc", 916, "2018-02-01 08:44:00", "2018-02-01 23:59:00"),
    ],
)
def test_navigation(name: str, rows: int, first: str, last: str) -> None:
    found = mapped(name)
    section = found.sections["navigation"]
    assert section["solar_zenith"] is None  # computed
    assert any("the sun is computed from time and place" in note for note in found.notes)
    with hdf5.open_file(REAL / name) as file:
        time_s = clocks.read_times(file, Navigation(time=section["time"]), "navigation", 1)
    assert len(time_s) == rows
    assert shown(time_s[0]).startswith(first)
    assert shown(time_s[-1]).startswith(last)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CPEX_MASC_Fri_Jun__2_16-17-34_2017.he5", "'channel index' runs along one of its axes"),
        ("impacts_cosmir_20200223_nadir_v1.nc", "'chans' runs along one of its axes"),
        ("IMPACTS_SBU_ceilo_20220101_0000_cl51k.nc", "holds 'Location_latitude'"),
        ("nsacloudphaseC1.c1.20180601.000000.nc", "holds 'cloud_phase_hsrl' (2880, 95)"),
        ("enatsiskycoverC1.b1.20230307.082100.cdf", "enatsiskycoverC1"),
    ],
)
def test_what_is_neither_camera_nor_lidar_is_named(name: str, said: str) -> None:
    found = mapped(name)
    assert not found.sections["camera"]
    assert not found.sections["lidar"]
    assert said in dict(found.missing)["data.camera.channels"]
