"""The results of a search: every finished trial, the best of them, and its configuration."""

import math
from pathlib import Path
from typing import Any

from cloudml_tf.config.load import parse_config
from cloudml_tf.config.run_folder import read_json
from cloudml_tf.experiments.search.settings import Search
from cloudml_tf.experiments.search.table import HEAD, MOST_FIELDS, cells, columns, values_text
from cloudml_tf.nn.directions import merit
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.files import write_json
from cloudml_tf.utils.locks import WRITING, sweep


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The finished trials of a search, by their number."""
    return [read_json(path) for path in sorted(folder.glob("trials/*/result.json"))]


def ranked(results: list[dict[str, Any]], objective: str) -> list[dict[str, Any]]:
    """Sort completed trials from best to worst, then those that collapsed or failed."""
    worth = merit(objective)

    def key(result: dict[str, Any]) -> tuple[bool, float]:
        done = result["status"] == "completed"
        return not done, -worth(result[objective]) if done else math.inf

    return sorted(results, key=key)


def collect(folder: Path, search: Search) -> dict[str, Any]:
    """The content of search.json."""
    found = ranked(read_results(folder), search.tuner.objective)
    statuses = [result["status"] for result in found]
    return {
        "experiment": search.experiment_name,
        "objective": search.tuner.objective,
        "tuner": search.tuner.model_dump(mode="json"),
        "counts": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "best": found[0]["id"] if statuses[:1] == ["completed"] else None,
        "seconds": sum(result["seconds"] for result in found),
        "trials": found,
    }


def best_config(found: dict[str, Any], search: Search) -> dict[str, Any] | None:
    """The best trial as a configuration for `cloudml train`; None where no trial was completed."""
    if found["best"] is None:
        return None
    content = search.content(found["trials"][0]["values"])
    content["experiment_name"] = f"{search.experiment_name}_best"
    parse_config(content, "best.json")
    return content


def write_results(folder: Path, search: Search) -> dict[str, Any]:
    """Write best.json, report.html and, last, search.json, whose presence means that the search has ended."""
    from cloudml_tf.experiments.search.page import write_page

    sweep(list(folder.rglob(f"{WRITING}*")))  # a worker may have been killed, and all have ended
    found = collect(folder, search)
    best = best_config(found, search)
    if best is not None:
        write_json(folder / "best.json", best)
    write_page(folder, found, search, best)
    write_json(folder / "search.json", found)
    return found


def print_results(console: Console, found: dict[str, Any], search: Search) -> None:
    """Print the table, the reasons of failures, and the best. A terminal is too narrow for the values of many
    fields."""
    fields = columns(search) if len(search.space) <= MOST_FIELDS else []
    width = len(HEAD) + len(fields)
    rows = [cells(result, search)[:width] for result in found["trials"]]
    console.table("trials, by the validation split", [*HEAD, *fields], rows)
    for result in found["trials"]:
        if result["status"] in ("failed", "not finite"):
            console.say(f"trial {result['id']}, {result['status']}: {result['reason']}")
    counts = ", ".join(f"{number} {status}" for status, number in found["counts"].items())
    console.say(f"{len(found['trials'])} trials: {counts or 'none'}; {found['seconds']:.0f} s of training")
    if found["best"] is not None:
        console.say(f"best, trial {found['best']}: {values_text(found['trials'][0])}")
