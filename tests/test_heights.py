"""A training of the network of heights on flights over planted layers, what it writes, and what it needs."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from flight_files import BASE, SIGNAL, START_S, TOP, camera_file, slots, tiny_content, write_flight
from test_geometry import ALTITUDE_KM, SCALE, SPEED, counts
from test_height_network import HEIGHT_MODEL, moving

from cloudml_tf.commands.main import main
from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import prepare
from cloudml_tf.inference.flags import FLAGS, MASKS
from cloudml_tf.nn.height_network import STRIP_ROWS
from cloudml_tf.nn.introspection import frame_encoder_of
from cloudml_tf.train.network import new_model
from cloudml_tf.train.pretrain import pretrain
from cloudml_tf.train.transfer import encoder_vectors, load_encoder
from cloudml_tf.utils.console import Console

FRAMES = 40
QUICK = ("training.max_epochs=1", "output.export=false", "model.architecture=cost_volume_no_attention")


def layered_flight(folder: Path, height_km: list[float], seed: int) -> None:
    """A flight over layers of cloud 0.3 km thick, `FRAMES` frames over each."""
    images = np.concatenate([moving(np.full(FRAMES, h), seed=seed + 10 * n) for n, h in enumerate(height_km)])
    top = np.repeat(height_km, FRAMES)
    count = len(top)
    level = {"nav/altitude": np.full(count, 1000.0 * ALTITUDE_KM), "nav/groundSpeed": np.full(count, SPEED)}
    write_flight(
        folder,
        seed=seed,
        frame_s=START_S + np.arange(count),
        profile_s=START_S + np.arange(count),
        half_span_s=0.4,
        camera={SIGNAL: counts(images)},
        lidar={TOP: slots(*([h] for h in top)), BASE: slots(*([h - 0.3] for h in top))},
        navigation=level,
    )
    with h5py.File(camera_file(folder), "a") as file:
        file.attrs["pixel_m"] = 1000.0 * ALTITUDE_KM / SCALE


@pytest.fixture(scope="module")
def heights_file(tmp_path_factory) -> Path:
    """A configuration of three flights over planted layers: none of the test flight's heights is in the training."""
    home = tmp_path_factory.mktemp("heights")
    for number, (name, layers) in enumerate({"a": [0.6, 2.6, 4.4], "b": [1.4, 3.6], "c": [1.0, 3.0]}.items()):
        layered_flight(home / "flights" / name, layers, 100 * number)
    changes = {
        "temporal_frames": 5,
        "target": {"name": "cloud_base_km", "further": ["cloud_top_km"]},
        "data.sun_angles": False,
        "model": {**HEIGHT_MODEL, "head": "histogram", "bins": 40},
        "loss": {"base": "cross_entropy", "weight": 0.0},
        "augmentation": {"height_shift_km": 1.0},
        "training": {"max_epochs": 6, "batch_size": 8, "learning_rate": 5e-3, "keep": "last"},
        "output.report": False,
    }
    path = home / "heights.json"
    path.write_text(json.dumps(tiny_content(home, changes)))
    return path


def test_a_training_scores_what_is_learned_beside_the_target(heights_file: Path, tmp_path: Path, capsys):
    options = [word for pair in QUICK for word in ("--set", pair)]
    assert main(["train", str(heights_file), "--run-dir", str(tmp_path / "run"), *options]) == 0
    shown = capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["training"]["best_epoch"] == 1
    assert set(metrics["further"]["cloud_top_km"]) == {"train", "val", "test"}
    assert "beside it, cloud_top_km: R²" in shown
    assert "until then a simpler model." in shown  # of fewer frames less motion would be seen
    assert "plane_sweep" in metrics["baselines"]
    arrays = np.load(tmp_path / "run" / "predictions.npz")
    label, prediction = (arrays[f"test_cloud_top_km_{which}"] for which in ("label", "prediction"))
    assert metrics["further"]["cloud_top_km"]["test"]["mae"] == pytest.approx(
        np.abs(label - prediction).mean(), rel=1e-5
    )
    np.testing.assert_allclose(label - arrays["test_label"], 0.3, atol=1e-6)


@pytest.mark.slow
def test_a_flight_over_layers_of_other_heights_is_read_right(heights_file: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(heights_file), "--run-dir", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["val"]["r2"] > 0.8
    assert metrics["test"]["mae"] < 0.3  # 76 sequences, of which those over both layers have no height
    assert metrics["further"]["cloud_top_km"]["test"]["mae"] < 0.3
    assert metrics["training"]["best_epoch"] == 6
    arrays = np.load(run / "predictions.npz")
    for name in ("test", "test_cloud_top_km"):
        inside = (arrays[f"{name}_lower"] <= arrays[f"{name}_label"]) & (
            arrays[f"{name}_label"] <= arrays[f"{name}_upper"]
        )
        of = {"test": "cloud_base_km"}.get(name, "cloud_top_km")
        assert metrics["coverage"]["test"][of]["coverage"] == pytest.approx(inside.mean())
    thickness = arrays["test_cloud_top_km_prediction"] - arrays["test_prediction"]
    assert thickness.mean() == pytest.approx(0.3, abs=0.2)
    exported = metrics["export"]
    assert exported["parity"]["formats"]["savedmodel"]["within"]
    card = (Path(exported["folder"]) / "model_card.md").read_text()
    assert "| input `geometry` | (n, 5, 9) | as named | time_s, altitude_km" in card
    assert "| output `cloud_top_km` | (n, 1) | km | cloud top altitude, learned beside it |" in card
    for model, name in ((run, "run"), (Path(exported["folder"]), "export")):
        assert (
            main(["predict", str(model), str(heights_file.parent / "flights" / "c"), "-o", str(tmp_path / name)]) == 0
        )
    found, again = (xr.open_dataset(next((tmp_path / name).glob("*.nc"))) for name in ("run", "export"))
    with found, again:
        top, base = found["cloud_top_altitude"], found["cloud_base_altitude"]
        assert top.attrs["standard_name"] == "cloud_top_altitude"
        assert float((top - base).mean()) == pytest.approx(0.3, abs=0.2)
        assert (
            (found["cloud_base_altitude_lower"] <= found["cloud_base_altitude_upper"]).where(base.notnull(), True).all()
        )
        assert top.attrs["ancillary_variables"] == "cloud_top_altitude_lower cloud_top_altitude_upper"
        ends = [found[f"cloud_top_altitude_{end}"].where(top.notnull(), drop=True) for end in ("lower", "upper")]
        assert (ends[0] <= ends[1]).all()
        np.testing.assert_allclose(again["cloud_top_altitude"], top, atol=1e-3)
        flags = found["quality_flag"].values
    assert (flags & MASKS[FLAGS.index("wind_unknown")]).all()
    assert not (flags & MASKS[FLAGS.index("geometry_outside_training")]).any()


@pytest.mark.slow
def test_the_content_encoder_is_pretrained_and_handed_over(heights_file: Path, tmp_path: Path):
    short = {"pretraining": {"enabled": True, "max_epochs": 2, "batch_frames": 20, "frames_per_epoch": 100}}
    config = load_config(heights_file, {**short, "target.further": []})
    prepared = prepare(config)
    pretrained = pretrain(config, prepared, tmp_path / "pretraining", Console(machine=True))
    model = new_model(config, prepared)
    encoder = frame_encoder_of(model)
    assert encoder.input_shape[1] == STRIP_ROWS
    before = encoder_vectors(model, prepared.parts["val"])
    assert load_encoder(model, pretrained, config, prepared) == len(encoder.weights)
    for own, given in zip(encoder.get_weights(), pretrained.weights(), strict=True):
        np.testing.assert_array_equal(own, given)
    after = encoder_vectors(model, prepared.parts["val"])
    assert after.shape == before.shape == (len(prepared.parts["val"]), 2 * config.model.encoder_features)
    assert np.abs(after - before).max() > 1e-3
    picture = tmp_path / "pretraining" / "plots" / "reconstructions.png"
    assert picture.is_file()


def test_geometry_that_the_network_needs_and_files_lack_is_an_error(heights_file: Path, tmp_path: Path, capsys):
    layered_flight(tmp_path / "d", [2.0], 7)
    with h5py.File(camera_file(tmp_path / "d"), "a") as file:
        del file.attrs["pixel_m"]
    content = json.loads(heights_file.read_text())
    content["data"]["path"] = str(tmp_path)
    config: Config = parse_config(content)
    from cloudml_tf.data.sources import available_flights, read_flights
    from cloudml_tf.utils.errors import DataError

    with pytest.raises(DataError, match="the camera's geometry, which is unknown: data"):
        read_flights(available_flights(config), ["d"], config)


@pytest.mark.slow
def test_grid_search_ensemble_and_comparison_take_heights(heights_file: Path, tmp_path: Path, capsys):
    few = {"training.max_epochs": 2, "evaluation.bootstrap_samples": 100}
    rows = {"five": {}, "three": {"set": {"temporal_frames": 3}}, "penalty": {"set": {"loss.weight": 0.5}}}
    shared = {"experiment_name": "lab", "base": str(heights_file), "set": few}
    grid, search = tmp_path / "grid.json", tmp_path / "search.json"
    grid.write_text(json.dumps({**shared, "seeds": [1], "reference": "five", "rows": rows}))
    assert main(["ablate", str(grid), "--run-dir", str(tmp_path / "grid"), "--jobs", "1"]) == 0
    found = json.loads((tmp_path / "grid" / "summary.json").read_text())
    assert not found["failed"]
    assert "plane sweep" in capsys.readouterr().out

    space = {"frame_spacing_s": [None, 2.0], "model.architecture": ["cost_volume", "cost_volume_no_attention"]}
    search.write_text(json.dumps({**shared, "space": space, "tuner": {"kind": "random", "trials": 2}}))
    assert main(["search", str(search), "--run-dir", str(tmp_path / "search")]) == 0
    assert json.loads((tmp_path / "search" / "search.json").read_text())["counts"] == {"completed": 2}

    members = [str(tmp_path / "grid" / row / "seed1") for row in ("five", "penalty")]
    assert main(["compare", *members, "--run-dir", str(tmp_path / "compared")]) == 0
    compared = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert compared["space"] == "cloud_base_km"
    options = ["--calibrate", str(heights_file.parent / "flights" / "b"), "--set", "output.export=true"]
    assert main(["ensemble", *members, "--run-dir", str(tmp_path / "ensemble"), *options]) == 0
    shown = capsys.readouterr().out
    assert "the ensemble answers cloud_base_km alone; its members have cloud_top_km too" in shown
    export = shown.split("cloudml predict ")[1].split(" FLIGHT")[0]
    assert main(["predict", export, str(heights_file.parent / "flights" / "c"), "-o", str(tmp_path / "c.nc")]) == 0
    with xr.open_dataset(tmp_path / "c.nc") as file:
        base = file["cloud_base_altitude"]
        assert float((file["cloud_base_altitude_upper"] - file["cloud_base_altitude_lower"]).mean()) > 0.0
        assert 0.5 < float(base.mean()) < 3.0
