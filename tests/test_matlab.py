"""MATLAB's files: version 7.3 is HDF5 with a block before it, older ones are refused with the way out."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from cloudml_tf.commands.init import data_files
from cloudml_tf.data.discovery.datasets import read_content
from cloudml_tf.data.readers import hdf5
from cloudml_tf.utils.errors import DataError


def put(file: h5py.File, name: str, values: Any, kind: str, **attributes: Any) -> None:
    """Write a variable as MATLAB does: transposed, and with its class."""
    file[name] = np.asarray(values).T
    file[name].attrs["MATLAB_class"] = np.bytes_(kind)
    file[name].attrs.update(attributes)


def version_73(path: Path) -> Path:
    """Numbers, a text, a cell array, an empty array, a logical one and a sparse matrix."""
    with h5py.File(path, "w", userblock_size=512) as file:
        put(file, "t", [np.arange(12.0)], "double")
        put(file, "names", [[ord(letter) for letter in "lidar"]] * 2, "char", MATLAB_int_decode=np.int32(2))
        put(file, "nothing", np.array([0, 5], "u8"), "double", MATLAB_empty=np.uint8(1))
        put(file, "good", [[1, 0, 1]], "logical", MATLAB_int_decode=np.int32(1))
        inner = file.create_dataset("#refs#/a", data=np.arange(9.0))
        file.create_dataset("cell", data=np.array([[inner.ref]], h5py.ref_dtype))
        file["cell"].attrs["MATLAB_class"] = np.bytes_("cell")
        sparse = file.create_group("sparse")
        sparse.attrs.update({"MATLAB_class": np.bytes_("double"), "MATLAB_sparse": np.uint64(4)})
        sparse["data"], sparse["ir"], sparse["jc"] = [1.0, 2.0], [0, 3], [0, 1, 2]
        put(file.create_group("nav"), "heading", np.arange(4.0)[:, None], "double")
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jun  3 12:00:00 2024 HDF5 schema 1.00 .")
    return path


def test_numbers_of_version_73_are_read_and_nothing_else(tmp_path: Path) -> None:
    content = read_content(version_73(tmp_path / "x.mat"))
    assert {found.name: found.shape for found in content.datasets} == {"good": (3,), "nav/heading": (4,), "t": (12,)}
    assert not content.skipped


@pytest.mark.parametrize(("name", "what"), [("names", "a text"), ("nothing", "an empty array"), ("cell", "a cell")])
def test_what_is_no_number_is_named(tmp_path: Path, name: str, what: str) -> None:
    with (
        hdf5.open_file(version_73(tmp_path / "x.mat")) as file,
        pytest.raises(DataError, match=f"'{name}' must hold numbers. Received: {what}"),
    ):
        hdf5.dataset(file, name)


@pytest.mark.parametrize("form", ["5", "4"])
def test_older_versions_are_refused_with_the_way_out(tmp_path: Path, form: str) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"t": np.arange(3.0), "label": "lidar"}, format=form)
    with pytest.raises(DataError, match=r"x\.mat: is a MATLAB file of version .*`save\('x.mat','-v7.3'\)`"):
        read_content(tmp_path / "x.mat")


@pytest.mark.parametrize("values", [np.arange(3, dtype="i2"), np.zeros((2, 0)), np.ones((3, 2), "f4"), "text"])
def test_version_4_is_known_by_its_header(tmp_path: Path, values: Any) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"a_longer_name": values}, format="4")
    with pytest.raises(DataError, match="is a MATLAB file of version"):
        read_content(tmp_path / "x.mat")


@pytest.mark.parametrize("suffix", [".mat", ".he5", ".cdf", ".hdf", ".ict", ".MAT"])
def test_init_looks_for_files_of_that_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x{suffix}").write_bytes(b"")
    (tmp_path / "x.txt").write_bytes(b"")
    assert data_files([str(tmp_path)]) == [tmp_path / f"x{suffix}"]
