"""What must be so after every kill: each file is whole or not there; and at the end: all is as without any."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import matplotlib.image
import numpy as np

from cloudml_tf.config.run_folder import CHECKPOINT, PREVIOUS, RECORD
from cloudml_tf.inference.export.formats import FORMATS
from cloudml_tf.train.checkpoint import load


def artefacts(*folders: Path) -> list[Path]:
    """All files that count: not what is hidden."""
    found = [(path, path.relative_to(folder)) for folder in folders for path in sorted(folder.rglob("*"))]
    return [path for path, below in found if path.is_file() and not any(part[0] == "." for part in below.parts)]


def corrupt(*folders: Path) -> list[str]:
    """The files below these folders that cannot be read to their end."""
    wrong = []
    for path in artefacts(*folders):
        try:
            if not _whole(path):
                wrong.append(f"{path}: cut off")
        except Exception as error:  # whatever a reader makes of a damaged file
            wrong.append(f"{path}: {type(error).__name__} {error}")
    return wrong


def _whole(path: Path) -> bool:
    if path.name in (CHECKPOINT, PREVIOUS):
        load(path)
    elif path.suffix == ".npz":
        arrays(path)
    elif path.suffix in (".h5", ".nc", ".hdf5"):
        datasets(path)
    elif path.suffix == ".png":
        matplotlib.image.imread(path)
    elif path.suffix == ".csv":
        head, *rows = list(csv.reader(path.read_text().splitlines()))
        return bool(rows) and all(len(row) == len(head) for row in rows)
    elif path.suffix == ".html":
        return path.read_text().rstrip().endswith("</html>")
    elif path.name == RECORD:
        files = [path.parent / name for name in json.loads(path.read_text())["files"].values()]
        return all(file.stat().st_size > 0 for file in files)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    return True


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def without_seconds(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, without how long it took."""
    found = arrays(path)
    text = json.loads(bytes(found["_json"]).decode())
    text.pop("seconds")
    return {**found, "_json": np.array(json.dumps(text))}


def datasets(path: Path) -> dict[str, np.ndarray]:
    """All data sets of an HDF5 or NetCDF-4 file."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def formats_of(folder: Path) -> dict[str, str]:
    """The formats that lie in an export, each with a sum over its files."""
    if not (folder / RECORD).is_file():
        return {}
    found = {}
    for name in json.loads((folder / RECORD).read_text())["files"]:
        parts = [folder / FORMATS[name].file]
        parts += sorted((folder / "variables").glob("*")) if name == "savedmodel" else []
        found[name] = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    return found


def differences(one: Path, other: Path) -> list[str]:
    """What two run folders do not have bit by bit in common; times and places do not count."""
    found = [] if _same_text(one, other, "history.csv") else ["history.csv"]
    readers = {
        CHECKPOINT: without_seconds,  # weights, optimizer, random states; as JSON states of callbacks, and the history
        "predictions.npz": arrays,
        "best.weights.h5": datasets,
        "last.weights.h5": datasets,
    }
    for name, read in readers.items():
        if not (one / name).is_file() or not (other / name).is_file():
            found.append(f"{name} is missing")
            continue
        a, b = read(one / name), read(other / name)
        unequal = [key for key in a.keys() | b.keys() if key not in a or key not in b or not same(a[key], b[key])]
        found += [f"{name}: {key}" for key in sorted(unequal)]
    if scores(one) != scores(other):
        found.append("metrics.json")
    return found


def _same_text(one: Path, other: Path, name: str) -> bool:
    texts = [folder / name for folder in (one, other)]
    return all(text.is_file() for text in texts) and texts[0].read_bytes() == texts[1].read_bytes()


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit by bit."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool(a.tolist() == b.tolist()) if a.dtype.kind == "O" else a.tobytes() == b.tobytes()


def scores(run: Path) -> dict[str, Any]:
    """metrics.json without times and places."""
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text()) if (run / "metrics.json").is_file() else {}
    found.pop("export", None)
    return _timeless(found)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(part) for key, part in value.items() if key not in ("seconds", "folder", "run")}
    return [_timeless(part) for part in value] if isinstance(value, list) else value
