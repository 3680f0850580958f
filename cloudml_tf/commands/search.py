"""Search for a better configuration: `cloudml search search`.

    space ─ KerasTuner's oracle ─ trials ─ table, figure, best.json

One process, or a chief that assigns trials and workers that run them: docs/search.md.
"""

import argparse
import contextlib
import io
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cloudml_tf.commands.arguments import add_common, add_config, overrides_from, print_json
from cloudml_tf.config.load import expand, read_content
from cloudml_tf.config.run_folder import changes, flat, new_folder
from cloudml_tf.experiments.run import read_data
from cloudml_tf.experiments.search import workers
from cloudml_tf.experiments.search.results import print_results, read_results, write_results
from cloudml_tf.experiments.search.settings import Search, load_search
from cloudml_tf.experiments.search.table import OPTIMISM, values_text
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import EXIT_OK, ConfigError, RunError
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import alone_in, is_held
from cloudml_tf.utils.tf_logging import quiet_tensorflow
from cloudml_tf.utils.threads import limit_threads

if TYPE_CHECKING:
    from cloudml_tf.data.prepare import Prepared


MINIMAL = """a minimal SEARCH, beside config.json:
  {"experiment_name": "my_search",
   "base": "config.json",
   "space": {"loss.weight": [0, 0.5], "training.learning_rate": [0.001, 0.003]},
   "tuner": {"kind": "random", "trials": 4}}"""


def search_folder(search: Search, run_dir: str | None, resume: bool) -> Path:
    """The folder of a new search, or of the one to continue."""
    parent = expand(search.config().output.runs) / search.experiment_name
    if not resume:
        folder = new_folder(run_dir, parent, "search-")
        # With its base inside, for a resumed search and for workers.
        write_json(folder / "search_config.json", search.model_dump(mode="json"))
        return folder
    if run_dir is None:
        found = [path.parent for path in sorted(parent.glob("search-*/search_config.json"))]
        open_ones = [path for path in found if not ((path / "search.json").is_file() or is_held(path))]
        if not open_ones:
            raise RunError(f"{parent}: no interrupted search to resume. Start one without --resume.")
        run_dir = str(open_ones[-1])
    check_same(Path(run_dir), search)
    return Path(run_dir)


def check_same(folder: Path, search: Search) -> None:
    """Refuse to continue with another search. Raises `RunError` naming what differs."""
    if not (folder / "search_config.json").is_file():
        raise RunError(f"{folder}: no search_config.json, so no search to resume. Start it without --resume.")
    old = Search.model_validate(read_content(folder / "search_config.json"))
    before, now = (flat(one.model_dump(mode="json")) for one in (old, search))
    if changed := changes(before, now):
        raise RunError(f"{folder}: the search has changed since it began ({changed}). Start a new one.")


def run_trials(search: Search, folder: Path, console: Console, prepared: "Prepared | None") -> None:
    """Run trials until there are none left: alone, or as KerasTuner's chief or worker, by the environment."""
    quiet_tensorflow()
    # It warns about many traced functions, but each trial has its own.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    from cloudml_tf.experiments.search.tuner import CloudTuner

    with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner from"
        tuner = CloudTuner(search, folder, prepared)
    if workers.role() != "worker":
        tuner.oracle.on_end = partial(say_finished, console, folder, search, set())
    with workers.lost_chief_as_error():
        tuner.search()


def say_finished(console: Console, folder: Path, search: Search, said: set[str]) -> None:
    """Print the outcome of each trial that has finished and is not in `said` yet."""
    trials = getattr(search.tuner, "trials", None)
    for result in read_results(folder):
        if result["id"] in said:
            continue
        said.add(result["id"])
        score = f"R² {result['val_r2']:.3f}" if result["status"] == "completed" else result["status"]
        count = f"{len(said)}{f' of {trials}' if trials else ''}"
        console.say(f"{count:>9}  {score:<10} {result['seconds']:6.1f} s  {values_text(result)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    parser.epilog = f"{MINIMAL}\n\n{parser.epilog}"
    add_config(parser, "search", "SEARCH")
    add("--resume", action="store_true", help="continue the newest interrupted search, or the one of --run-dir")
    add("--workers", type=int, metavar="N", help="train N variants at the same time on this machine")
    add("--threads", type=int, metavar="N", help="processor threads of this process, or of each worker")
    add_common(parser, "tuner.trials=10")


def run(args: argparse.Namespace) -> int:
    """Search, then write and print the results."""
    check_options(args)
    seed = {} if args.seed is None else {"tuner.seed": args.seed}
    search = load_search(args.config, {**overrides_from(args), **seed})
    console = Console(machine=args.json)
    workers.follow_parent()
    limit_threads(args.threads)
    if workers.role() == "worker" or workers.is_child():
        work(search, Path(args.run_dir), console)
        return EXIT_OK
    console.warn(*search.warnings())
    prepared = read_data(search.config(), console)  # what is wrong with the data ends the search before any trial
    # Only now: bad input must not leave an empty folder behind.
    folder = search_folder(search, args.run_dir, args.resume)
    console.say(f"search folder: {folder}")
    with alone_in(folder, "a search"):
        if (folder / "search.json").is_file():
            console.say("the search has ended already")
        elif args.workers:
            rows = partial(say_finished, console, folder, search, set())
            workers.run_workers(folder, args.workers, args.threads, rows, console)
        else:
            run_trials(search, folder, console, prepared)
        found = write_results(folder, search)
    print_results(console, found, search)
    if args.json:
        print_json({"search": str(folder), **found})
    if found["best"] is None:
        raise RunError(f"{folder}: no trial was completed; report.html has the reason of each.")
    console.say(f"{OPTIMISM}\nreport: {folder / 'report.html'}\nbest: {folder / 'best.json'}")
    return EXIT_OK


def check_options(args: argparse.Namespace) -> None:
    """Refuse invalid numbers of processes, and options that do not go together."""
    for name in ("workers", "threads"):
        number = getattr(args, name)
        if number is not None and number < 1:
            raise ConfigError(f"--{name} must be 1 or more. Received: {number}")
    if workers.role() != "alone" and args.workers:
        raise ConfigError("--workers starts a chief of its own; unset the KERASTUNER_ variables.")
    if workers.role() == "worker" and args.run_dir is None:
        raise ConfigError("A worker needs --run-dir, the folder of its chief.")


def work(search: Search, folder: Path, console: Console) -> None:
    """Run trials as a worker of a chief, or as a process of `--workers`; the search's results are not written here."""
    if workers.wait_for_chief(folder, console):
        check_same(folder, search)
        run_trials(search, folder, console, read_data(search.config(), console) if workers.role() == "worker" else None)
