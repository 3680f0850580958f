"""Each flight of a campaign left out, beside the baseline that the others choose: `python benchmarks/next_flight.py`.

What a user gets from `train` with a `selection`: recipe, factors and the baseline to compare with are chosen by leaving
out each training flight in turn, without the flight that is judged; the network is then trained without that flight and
without the validation flight, the next one. A network that has seen neither of two flights serves both as a fold of
the one and as the result of the other, so that each pair of flights is trained without once. What is finished is
not trained again.

By default the campaign of `benchmarks/foreign.py` with a configuration that `cloudml init` writes for it, one campaign
for each seed. `--config` names another one, with flights of its own.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from foreign import write_campaign
from tools.overrides import add_set
from tools.rounds import machine

from cloudml_tf.commands.init import data_files, propose_from, write_folder
from cloudml_tf.config.load import load_config, parse_overrides
from cloudml_tf.config.schema import Config
from cloudml_tf.data.readers.arrays import read_npz, write_npz
from cloudml_tf.data.samples import Samples
from cloudml_tf.data.sources import available_flights, samples_of
from cloudml_tf.evaluation.flight_intervals import fit_flight_intervals
from cloudml_tf.evaluation.scores import scores
from cloudml_tf.evaluation.selection import Fold, judged, paired, predictions_left_out
from cloudml_tf.evaluation.uncertainty import interval_scores
from cloudml_tf.experiments.selection import left_out_by_baselines, left_out_by_network, recipes_of
from cloudml_tf.utils.console import Console


def main() -> None:
    """Train, choose, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="of a campaign; by default one is simulated for each seed")
    parser.add_argument("--home", type=Path, default=Path("runs/next_flight"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--flights", type=int, default=12, help="of a campaign that is simulated")
    add_set(parser)
    args = parser.parse_args()
    print(f"{machine()}\n")
    results = {seed: of_seed(args, seed) for seed in args.seeds}
    for seed, found in results.items():
        print(f"seed {seed}\n{table(found)}\n")
    print(conclusion(results))


def of_seed(args: argparse.Namespace, seed: int) -> dict[str, dict]:
    """For each flight that is left out: scores of ours and of the baselines, and what was chosen."""
    home = args.home / str(seed)
    config = load_config(args.config or campaign(home, seed, args.flights), {**parse_overrides(args.set), "seed": seed})
    samples = samples_of(available_flights(config), config)
    names = [samples.flight_names[number] for number in np.unique(samples.flight)]
    recipes = recipes_of(config)
    pairs = {frozenset(pair): without(pair, samples, config, recipes, home) for pair in combinations(names, 2)}
    return {name: judge(name, names, pairs, config) for name in names}


def campaign(home: Path, seed: int, flights: int) -> str:
    """The configuration that `cloudml init` writes for a simulated campaign."""
    folder = home / "campaign"
    if not (folder / "config.json").is_file():
        write_campaign(home / "flights", seed, flights)
        content, _ = propose_from(data_files([str(home / "flights")]), folder, Console(quiet=True))
        write_folder(folder, content, with_flights=False)
    return str(folder / "config.json")


def without(pair: tuple[str, str], samples: Samples, config: Config, recipes: dict[str, Config], home: Path) -> dict:
    """Predictions of both flights by what was fitted to the others: flight -> "baselines" or recipe -> `Fold`."""
    path = home / f"{'_'.join(pair)}.npz"
    numbers = {name: samples.flight_names.index(name) for name in pair}
    if not path.is_file():
        kept = ~np.isin(samples.flight, list(numbers.values()))
        both = {name: samples.take(samples.flight == number) for name, number in numbers.items()}
        arrays: dict[str, np.ndarray] = {}
        for key, found in (
            ("baselines", left_out_by_baselines(config, samples.take(kept), both)),
            *((recipe, left_out_by_network(one, samples.take(kept), both)) for recipe, one in recipes.items()),
        ):
            arrays |= {f"{name}|{key}|{what}": x for name, fold in found.items() for what, x in fold.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, **arrays)
        print(f"seed {config.seed}: without {' and '.join(pair)}", flush=True)
    folds: dict[str, dict[str, Fold]] = {name: {} for name in pair}
    for key, values in read_npz(path).items():
        name, made_by, what = key.split("|")
        folds[name].setdefault(made_by, {})[what] = values
    return folds


def judge(name: str, names: list[str], pairs: dict, config: Config) -> dict:
    """Ours and the chosen baseline on a flight, by what the others have decided."""
    assert config.selection is not None
    others = [other for other in names if other != name]
    inner = {other: pairs[frozenset((name, other))][other] for other in others}
    chosen = judged(inner, list(recipes_of(config)), config.selection.average)
    following = names[(names.index(name) + 1) % len(names)]
    final = pairs[frozenset((name, following))][name]
    baselines, network = final["baselines"], final[chosen["recipe"]]["network"]
    target, mean = baselines["target"], baselines["mean"]
    by_name = {"mean": np.full(len(target), mean), **{key: x for key, x in baselines.items() if x.ndim}}
    by_name.pop("target")
    ours = network
    if "factors" in chosen:
        parts = {"network": network, **by_name}
        ours = mean + sum(factor * (parts[key] - mean) for key, factor in chosen["factors"].items())
    rows = {"ours": ours, "network": network, **by_name, "best": by_name[chosen["best_baseline"]]}
    found = {"chosen": chosen, **{key: scores(target, np.asarray(x)) for key, x in rows.items()}}
    known, made, _ = predictions_left_out(inner, list(recipes_of(config)), config.selection.average)
    level = config.prediction.level
    for key, constant in (("interval", False), ("constant", True)):
        fitted = fit_flight_intervals(known, made[chosen["ours"]], constant)
        assert fitted is not None
        half = fitted.half_width(ours, level)
        found[key] = interval_scores(target, ours - half, ours + half, level)
    return found


def table(found: dict[str, dict]) -> str:
    """One row a flight."""
    rows = [
        "| left out | ours: R² | s | RMSE | network | best baseline, RMSE | its name | ours / it | interval covers |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    for name, each in found.items():
        ours, best = each["ours"], each["best"]
        rows.append(
            f"| {name} | {ours['r2']:.2f} | {ours['variance_ratio']:.2f} | {ours['rmse']:.3f} | "
            f"{each['network']['rmse']:.3f} | {best['rmse']:.3f} | {each['chosen']['best_baseline']} | "
            f"{ours['rmse'] / best['rmse']:.2f} | {each['interval']['coverage']:.0%} |"
        )
    for key in ("mean", "ridge", "gradient_boosting", "network", "ours"):
        r2 = [each[key]["r2"] for each in found.values()]
        rows.append(f"{key}: R² mean {np.mean(r2):.2f}, median {np.median(r2):.2f}, worst {min(r2):.2f}  ")
    return "\n".join(rows)


def conclusion(results: dict[int, dict[str, dict]]) -> str:
    """RMSE less the best baseline's, paired over the flights of all seeds."""
    every = {f"{seed} {name}": each for seed, found in results.items() for name, each in found.items()}
    gap = paired(*({"flights": {name: each[key] for name, each in every.items()}} for key in ("ours", "best")))
    worst = max(each["ours"]["rmse"] / each["best"]["rmse"] for each in every.values())
    low, high = gap["ci90"]
    covered, score, flat = (
        np.mean([each[key][what] for each in every.values()])
        for key, what in (("interval", "coverage"), ("interval", "interval_score"), ("constant", "interval_score"))
    )
    return (
        f"ours less the best baseline, RMSE over {gap['of']} flights: {gap['mean']:+.3f}, 90 % interval {low:+.3f} to "
        f"{high:+.3f}; better on {gap['better']}; worst ratio {worst:.2f}\n90 % intervals cover {covered:.0%} of the "
        f"labels, flights alike; interval score {score:.2f}, of a constant width {flat:.2f}"
    )


if __name__ == "__main__":
    main()
