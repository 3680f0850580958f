"""Heights of clouds, each flight left out in turn, validation on the next: `python benchmarks/heights.py`.

Per flight the mean absolute error and the bias of base and top, km, beside the plane sweep's; then pooled. "Within" is
pooled over flights after each flight's own mean was taken from truth and prediction. The last column predicts the top
less the mean thickness of the training, which a base has to beat. A fold that is finished is not trained again.

`--control` retrains on what shows no height, to see what the looks of a cloud alone give: "shuffled" (the frames of a
sequence in random order), "one_frame" (its middle frame in place of all), "no_geometry" (no motion, no attitude), or
"tier1" (the attention network, which reads no geometry). It prints the base beside regressions on image statistics.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tools.overrides import add_set
from tools.rounds import machine

from cloudml_tf.config.load import load_config, parse_overrides
from cloudml_tf.config.run_folder import new_run, read_json, read_run, write_start
from cloudml_tf.config.schema import Config
from cloudml_tf.data.named import samples_of_run
from cloudml_tf.data.readers.arrays import write_npz
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.sources import available_flights
from cloudml_tf.evaluation.baselines import fit_predict
from cloudml_tf.experiments.run import fit_and_evaluate, read_data, train
from cloudml_tf.nn.sightlines import FORWARD, PITCH, RIGHT, ROLL, WIND_FORWARD, WIND_RIGHT
from cloudml_tf.utils.console import Console

TARGETS = ("cloud_base_km", "cloud_top_km")
Fold = dict[str, np.ndarray]
STATISTICS = ("ridge", "gradient_boosting")
TIER1 = {"model": {"architecture": "attention", "widths": [16, 24, 32]}, "loss": {"weight": 0.5}, "target.further": []}
TIER1["augmentation.height_shift_km"] = 0.0


def main() -> None:
    """Train the folds, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", default="configs/les3d.json")
    parser.add_argument("--home", default="runs/heights", help="the folder of the folds")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", help="draws a picture of each flight that is left out into this folder")
    parser.add_argument("--flights", nargs="*", help="left out in turn; all by default")
    parser.add_argument("--control", choices=("shuffled", "one_frame", "no_geometry", "tier1"))
    add_set(parser)
    args = parser.parse_args()
    changes = {"output.export": False, "output.report": False, **(TIER1 if args.control == "tier1" else {})}
    changes |= parse_overrides(args.set)
    config = load_config(args.config, changes)
    names = sorted(available_flights(config))
    print(f"{machine()}\n")
    for seed in range(1, args.seeds + 1):
        chosen = args.flights or names
        if args.control:
            home = Path(args.home) / args.control
            print(f"seed {seed}\n{controlled(args.control, args.config, changes, names, chosen, seed, home)}\n")
            continue
        folds = {name: fold(args.config, changes, names, name, seed, Path(args.home)) for name in chosen}
        print(f"seed {seed}\n{table(folds)}\n")
        for name in chosen if args.out is not None else ():
            picture(Path(args.home) / f"{name}_{seed}", Path(args.out) / f"{name}.png")


def fold(config_path: str, changes: dict, names: list[str], test: str, seed: int, home: Path) -> Fold:
    """The predictions of the flight that is left out, and the sweep's error."""
    folder = home / f"{test}_{seed}"
    if not (folder / "metrics.json").is_file():
        train(config_of(config_path, changes, names, test, seed), Console(machine=True), str(folder))
    metrics, arrays = read_json(folder / "metrics.json"), np.load(folder / "predictions.npz")
    found = {"base": arrays["test_prediction"] - arrays["test_label"], "base_label": arrays["test_label"]}
    if "test_cloud_top_km_label" in arrays:
        found["top_label"] = arrays["test_cloud_top_km_label"]
        found["top"] = arrays["test_cloud_top_km_prediction"] - found["top_label"]
        thick = np.concatenate([arrays[f"train_{TARGETS[1]}_label"] - arrays["train_label"]])
        found["thickness"] = np.asarray(np.nanmean(thick))
    for key, place in (("base", "test"), ("top", "test_cloud_top_km")):
        if f"{place}_lower" in arrays:
            label = arrays[f"{place}_label"]
            found[f"{key}_inside"] = (arrays[f"{place}_lower"] <= label) & (label <= arrays[f"{place}_upper"])
    sweep = metrics.get("baselines", {}).get("plane_sweep", {}).get("test", {}).get("mae", np.nan)
    return {**found, "sweep": np.asarray(sweep)}


def config_of(config_path: str, changes: dict, names: list[str], test: str, seed: int) -> Config:
    """The configuration of a fold: validation on the flight after the one that is left out."""
    val = names[(names.index(test) + 1) % len(names)]
    split = {"kind": "flights", "train": [n for n in names if n not in (test, val)], "val": [val], "test": [test]}
    return load_config(config_path, {**changes, "split": split, "seed": seed})


def apart(samples: Samples, order: np.ndarray) -> Samples:
    """Each sequence with frames of its own, in another order (n,T); the geometry stays as it was."""
    rows = samples.index.ravel()
    shown = np.take_along_axis(samples.index, order, axis=1).ravel()
    angles = None if samples.sun_angles_deg is None else samples.sun_angles_deg[rows]
    sight = None if samples.sight is None else replace(samples.sight, geometry=samples.sight.geometry[rows])
    index = np.arange(len(rows)).reshape(samples.index.shape)
    features = samples.features[rows]
    return replace(
        samples, table=samples.table[shown], index=index, sun_angles_deg=angles, features=features, sight=sight
    )


def shuffled(samples: Samples, rng: np.random.Generator) -> Samples:
    """The frames of each sequence in random order."""
    return apart(samples, rng.permuted(np.tile(np.arange(samples.index.shape[1]), (len(samples), 1)), axis=1))


def one_frame(samples: Samples, _: np.random.Generator) -> Samples:
    """The middle frame in place of all."""
    return apart(samples, np.full(samples.index.shape, samples.index.shape[1] // 2))


def no_geometry(samples: Samples, _: np.random.Generator) -> Samples:
    """Without motion and attitude; altitude and size of a pixel stay."""
    assert samples.sight is not None
    geometry = samples.sight.geometry.copy()
    geometry[:, [ROLL, PITCH, FORWARD, RIGHT, WIND_FORWARD, WIND_RIGHT]] = 0.0
    return replace(samples, sight=replace(samples.sight, geometry=geometry))


def tier1(samples: Samples, _: np.random.Generator) -> Samples:
    """As it is: the network is another one."""
    return samples


CONTROLS: dict[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "shuffled": shuffled, "one_frame": one_frame, "no_geometry": no_geometry, "tier1": tier1,
}  # fmt: skip


def control_fold(control: str, config: Config, folder: Path) -> None:
    """Train a fold on spoilt examples, and keep what regressions on image statistics say of its test flight."""
    console = Console(machine=True)
    prepared = read_data(config, console)
    rng = np.random.default_rng(config.seed)
    spoil = CONTROLS[control]
    parts = {part: spoil(each, rng) for part, each in prepared.parts.items() if isinstance(each, Samples)}
    prepared = replace(prepared, parts=parts, fitted=parts["train"])
    target = prepared.scaling.target
    found = fit_predict(parts, target, config.preprocessing.log_offset, config.seed)
    folder = new_run(config, str(folder))
    write_start(folder, config, prepared.description())
    fit_and_evaluate(config, prepared, folder, console, resume=False)
    write_npz(folder / "statistics.npz", **{name: target.physical(found[name]["test"]) for name in STATISTICS})


def controlled(
    control: str, config_path: str, changes: dict, names: list[str], chosen: list[str], seed: int, home: Path
) -> str:
    """The base by a control, and by image statistics."""
    answers: dict[str, list[np.ndarray]] = {name: [] for name in (control, *STATISTICS)}
    labels = []
    for test in chosen:
        folder = home / f"{test}_{seed}"
        if not (folder / "statistics.npz").is_file():
            control_fold(control, config_of(config_path, changes, names, test, seed), folder)
        arrays = np.load(folder / "predictions.npz")
        labels.append(arrays["test_label"])
        answers[control].append(arrays["test_prediction"])
        for name, values in np.load(folder / "statistics.npz").items():
            answers[name].append(values)
    truth = np.concatenate(labels)
    lines = ["| | within flights r | R² | pooled R² | MAE |", "|---|---|---|---|---|"]
    for name, each in answers.items():
        r, r2, _ = within(labels, each)
        error = np.concatenate(each) - truth
        whole = 1.0 - (error**2).sum() / ((truth - truth.mean()) ** 2).sum()
        lines.append(f"| {name} | {r:.3f} | {r2:.3f} | {whole:.3f} | {np.abs(error).mean():.3f} |")
    return "\n".join(lines)


def within(labels: list[np.ndarray], answers: list[np.ndarray]) -> tuple[float, float, float]:
    """r, R² and s over flights after each flight's own mean was taken from truth and prediction."""
    t, p = (np.concatenate([each - each.mean() for each in several]) for several in (labels, answers))
    r2 = 1.0 - ((t - p) ** 2).sum() / (t**2).sum()
    return float(np.corrcoef(t, p)[0, 1]), float(r2), float(p.std() / t.std())


def table(folds: dict[str, Fold]) -> str:
    """A line a flight, then the pooled ones."""
    lines = [
        "| flight | n | base MAE | bias | sweep | top MAE | bias | top - mean thickness |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in folds.items():
        numbers = [np.abs(found["base"]).mean(), found["base"].mean(), float(found["sweep"])]
        if "top" in found:
            plain = found["top"] + found["top_label"] - found["thickness"] - found["base_label"]
            numbers += [np.nanmean(np.abs(found["top"])), np.nanmean(found["top"]), np.nanmean(np.abs(plain))]
        lines.append(f"| {name} | {len(found['base'])} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")
    for key in ("base", "top"):
        if all(key in found for found in folds.values()):
            lines.append(pooled(key, list(folds.values())))
    return "\n".join(lines)


def pooled(key: str, folds: list[Fold]) -> str:
    """The error over all flights, and the correlation and R² within flights."""
    error = np.concatenate([found[key][np.isfinite(found[key])] for found in folds])
    known = [np.isfinite(found[key]) for found in folds]
    labels = [found[f"{key}_label"][here] for found, here in zip(folds, known, strict=True)]
    answers = [(found[f"{key}_label"] + found[key])[here] for found, here in zip(folds, known, strict=True)]
    r, r2, s = within(labels, answers)
    sweep = np.average([float(found["sweep"]) for found in folds], weights=[len(found["base"]) for found in folds])
    beside = f" (sweep {sweep:.3f})" if key == "base" else ""
    numbers = f"MAE {np.abs(error).mean():.3f}{beside}; within flights r {r:.3f}, R² {r2:.3f}"
    inside = [
        found[f"{key}_inside"][here] for found, here in zip(folds, known, strict=True) if f"{key}_inside" in found
    ]
    cover = ", ".join(f"{each.mean():.0%}" for each in inside)
    covered = f"; intervals cover {np.concatenate(inside).mean():.1%} (by flight {cover})" if inside else ""
    return f"\n{key}, {len(error)} columns: {numbers}, s {s:.2f}{covered}"


def picture(run: Path, path: Path) -> None:
    """The distribution of the top along the flight that is left out, with what the lidar measured and the answers."""
    time_s, share, height_km = distribution(run)
    arrays = np.load(run / "predictions.npz")
    minutes = (time_s - time_s[0]) / 60.0
    figure, axes = plt.subplots(2, 1, figsize=(10, 7), sharex=True, layout="constrained")
    grid = np.full((int(time_s[-1] - time_s[0]) + 1, len(height_km)), np.nan)
    grid[(time_s - time_s[0]).astype(int)] = share
    image = axes[0].imshow(
        grid.T, origin="lower", aspect="auto", cmap="Blues", vmax=0.3,
        extent=(0.0, minutes[-1], height_km[0], height_km[-1]),
    )  # fmt: skip
    figure.colorbar(image, ax=axes[0], label="share of each height")
    axes[0].plot(minutes, arrays["test_cloud_top_km_label"], ".", ms=2, color="black", label="top, lidar")
    axes[0].set(title=f"{run.name.split('_')[0]}: where the network sees the top", ylabel="height, km")
    for name, label, color in (("test", "base", "tab:orange"), ("test_cloud_top_km", "top", "tab:blue")):
        axes[1].plot(minutes, arrays[f"{name}_label"], ".", ms=2, color="black")
        axes[1].plot(minutes, arrays[f"{name}_prediction"], ".", ms=3, color=color, label=f"{label}, network")
    axes[1].set(xlabel="minutes", ylabel="height, km", title="base and top: the lidar in black")
    for axis in axes:
        axis.legend(loc="upper right", markerscale=4)
        axis.set_ylim(0.0, 1.2 * np.nanmax(arrays["test_cloud_top_km_label"]) + 0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def distribution(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times (n,), shares (n,K) of the heights (K,) of the test flight."""
    import keras

    from cloudml_tf.nn.introspection import frame_model_of, sequence_model_of
    from cloudml_tf.train.network import load_regressor

    config, description = read_run(run)
    model, examples = load_regressor(run, config, description), samples_of_run(config, description, "test")
    frame_model, sequence_model = frame_model_of(model), sequence_model_of(model)
    seen = keras.Model(sequence_model.inputs, sequence_model.get_layer("share").output)
    pieces = [slice(first, first + 64) for first in range(0, len(examples), 64)]
    shares = [np.asarray(seen(frame_model(examples.inputs(piece), training=False))) for piece in pieces]
    height_km = np.asarray(sequence_model.get_layer("answer").height_km)
    return examples.time_s, np.concatenate(shares), height_km


if __name__ == "__main__":
    main()
