"""What commands print on a terminal of 80 columns: whole tables, times, and no alarm of TensorFlow."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.cells import cell_len

from cloudml_tf.commands.main import main
from cloudml_tf.experiments.cross_validation import join_folds, print_folds
from cloudml_tf.experiments.grid import page
from cloudml_tf.experiments.grid.cells import cells, load_grid
from cloudml_tf.experiments.grid.summary import summarise
from cloudml_tf.experiments.search.results import print_results
from cloudml_tf.experiments.search.settings import Search
from cloudml_tf.inference.ensemble import tables as ensemble
from cloudml_tf.inference.export import parity
from cloudml_tf.reports.tables import print_scores
from cloudml_tf.train.tf_dataset import predict_batches
from cloudml_tf.train.transfer import print_pretraining
from cloudml_tf.utils.console import NUMBERS, ROW, SENTENCE, Console, minutes
from cloudml_tf.utils.tf_logging import expects_gpu

WIDTH = 80


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of all tables that are printed, each checked: lines of at most 80 columns, and every cell whole."""
    for name, value in {"TERM": "dumb", "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    titles: list[str] = []
    draw = Console.table

    def table(self: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
        assert self.rich.width == WIDTH
        with self.rich.capture() as capture:
            draw(self, title, columns, rows)
        text = capture.get()
        assert max(map(cell_len, text.splitlines())) <= WIDTH
        for name, *column in zip(columns, *rows, strict=True):
            sentences = any(cell_len(cell) > SENTENCE for cell in column)  # which wrap between words
            whole = [word for cell in column for word in cell.split()] if sentences else column
            for part in [*name.split(), *whole]:
                assert part in text or cell_len(part) > WIDTH // 2, part  # such as a path
        titles.append(title)

    monkeypatch.setattr(Console, "table", table)
    return titles


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def pretraining() -> dict[str, Any]:
    probe = {"r2": -0.1234, "variance_ratio": 0.98765, "correlation": 0.123456, "rmse": 1.2345}
    return {
        "verdict": "converged",
        "errors": {"network": 0.1, "mean_of_visible": 0.2, "interpolation": 0.3},
        "relative_error": 0.5,
        "probe": {"pretrained encoder": probe, "random encoder": probe, "ridge on the nadir footprint": probe},
    }


def trials() -> tuple[dict[str, Any], Search]:
    space = {
        f"training.{name}": [1, 2] for name in ("batch_size", "patience", "max_epochs", "warmup_steps", "run_length")
    }
    search = Search.model_validate({"experiment_name": "s", "base": {}, "space": space})
    scores = {
        "val_r2": -0.12345,
        "composite": 1.2345,
        "val_variance_ratio": 1.2345,
        "val_correlation": 0.9,
        "val_bias": 0.1,
    }
    trial = {"id": "0001", "status": "completed", "epochs": 120, "best_epoch": 100, "seconds": 1234.5, **scores}
    found = {"trials": [{**trial, "values": dict.fromkeys(space, 2)}], "counts": {"completed": 1}, "best": "0001"}
    return {**found, "seconds": 1.0}, search


def print_grid(metrics: Path, home: Path) -> None:
    """Two rows of three seeds that all have the same scores, one row with published figures and a long name."""
    base = read(metrics.with_name("config.json"))
    row = {"set": {"loss.form": "std"}, "expected": "more of it", "figures": {"r2": 0.12345, "variance_ratio": 0.5}}
    rows = {"plain": {}, "a row with quite a long name": row}
    content = {"experiment_name": "g", "base": base, "seeds": [1, 2, 3], "rows": rows, "reference": "plain"}
    (home / "grid.json").write_text(json.dumps(content))
    grid = load_grid(home / "grid.json", {})
    for cell in cells(grid):
        cell.folder(home).mkdir(parents=True)
        shutil.copy(metrics, cell.folder(home))
    page.print_tables(Console(), summarise(grid, cells(grid), home))


def print_members(metrics: dict[str, Any]) -> None:
    scores = metrics["test"]
    flight = {"n": 12345, "coverage": 0.91234, "width": 1.2345, "interval_score": 1.2345, "spread_alone": 0.5}
    mean = {key: {"mean": scores[key], "std": 0.1} for key in ensemble.OWN}
    found = {
        "space": metrics["space"],
        "member_scores": {"20260101-120000": scores},
        "mean_member": mean,
        "test": scores,
    }
    found["gain"] = {"rmse_fall": 0.1, "better_than": 1}
    found["intervals"] = {"test": {"ACTIVATE_20220302_L1": flight}, "mean": flight, "words": []}
    ensemble.tell(Console(), found)


def test_tables_of_results_fit_80_columns(printed: list[str], finished: Path, tmp_path: Path) -> None:
    metrics = read(finished / "metrics.json")
    print_scores(Console(), metrics)
    export = read(finished / "metrics.json")["export"]
    if "formats" in export:
        parity.show(Console(), export)
    print_folds(Console(), join_folds({"20220302_flight_one": metrics, "20220303_flight_two": metrics}))
    print_pretraining(Console(), pretraining())
    print_results(Console(), *trials())
    print_grid(finished / "metrics.json", tmp_path)
    print_members(metrics)
    assert len(printed) >= 9


def test_check_scenes_init_and_compare_fit_80_columns(
    printed: list[str], finished: Path, tiny_file: Callable[..., Path], tmp_path: Path
) -> None:
    other = shutil.copytree(finished, tmp_path / "a_run_with_a_long_name_of_its_own")
    config = read(other / "config.json")
    config["data"]["path"] = "/a/path/that/is/much/longer/than/half/of/the/eighty/columns/flights"
    (other / "config.json").write_text(json.dumps(config))
    assert main(["compare", str(finished), str(other), "--run-dir", str(tmp_path / "compared")]) == 0
    assert main(["check", str(tiny_file()), "--no-probe"]) in (0, 2)
    assert main(["scenes", "--config", str(tiny_file()), "-o", str(tmp_path / "scenes.h5")]) == 0
    flight = next(Path(read(tiny_file())["data"]["cache"]).rglob("sim01"))
    assert main(["init", str(tmp_path / "new"), "--from", str(flight)]) == 0
    assert len(printed) == 5


@pytest.mark.parametrize("width", [30, 50, 80, 260])
def test_a_table_of_any_width_is_whole(width: int) -> None:
    rng = np.random.default_rng(width)
    columns = ["name", *(f"column {n}" for n in range(14)), "why"]
    rows = [["row", *(f"{value:.4f}" for value in rng.normal(size=14)), "a sentence of many words, which may wrap"]] * 3
    console = Console()
    console.rich.width = width
    with console.rich.capture() as capture:
        console.table("a title", columns, rows)
    text = capture.get()
    assert max(map(cell_len, text.splitlines())) <= width
    assert all(text.count(number) == 3 for number in rows[0][1:15])
    assert all(word in text for word in rows[0][-1].split())
    assert ("┃" in text) == (width == 260)


def test_brackets_of_a_cell_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table("t", ["", "R²"], [["network", "0.5 [bold]"]])
    assert "0.5 [bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0m00s"), (59.7, "1m00s"), (119.6, "2m00s"), (3599.5, "60m00s"), (61, "1m01s")]
)
def test_a_time_has_no_sixtieth_second(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_the_row_of_an_epoch_fits_80_columns() -> None:
    keys = ("epoch", "loss", "val_loss", "r2", "s", "r", "bias", "lr", "time", "left")
    values = ("100/200", "12.3456", "12.3456", "-12.345", "1000%", "-0.999", "+12.345", "1.0e-03", "1234.5s", "120m00s")
    assert len(ROW.format(**dict(zip(keys, values, strict=True)))) < WIDTH
    assert NUMBERS["bias"][2] == "bias/std"  # the table has it in the label's unit


# --- TensorFlow


@pytest.mark.tensorflow("the log is TensorFlow's")
@pytest.mark.skipif(expects_gpu(), reason="here a GPU may fail, and has to be heard")
@pytest.mark.slow
def test_no_error_of_a_gpu_where_there_is_none() -> None:
    code = (
        "from cloudml_tf.utils.tf_logging import quiet_tensorflow; quiet_tensorflow()\n"
        "import tensorflow as tf; print(tf.config.list_physical_devices('GPU'), float(tf.reduce_sum(tf.ones(3))))"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[] 3.0\n"
    assert "cuInit" not in done.stderr


class Lengths(keras.utils.PyDataset):
    """Batches of other lengths."""

    lengths = (5, 4, 3)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> tuple[dict[str, np.ndarray]]:
        return ({"x": np.full((self.lengths[number], 2), number, "float32")},)


@pytest.mark.tensorflow("tracing is TensorFlow's")
def test_a_network_is_traced_once_for_batches_of_all_lengths(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(8):  # networks one after the other, as in a grid: TensorFlow counts their calls together
        x = keras.Input((2,), name="x")
        network = keras.Model({"x": x}, keras.layers.Dense(1, kernel_initializer="ones")(x))
        assert predict_batches(network, Lengths()).shape == (12, 1)
        assert np.array_equal(predict_batches(network, Lengths())[-1], [4.0])
        assert network.predict_function.experimental_get_tracing_count() == 1
    assert "retracing" not in caplog.text
