"""Commands killed at random moments, and what that costs: `python benchmarks/faults.py --kills 100`.

Rounds of trainings, searches, grids, exports and predictions. Each is a chain of real processes of the real command,
killed by SIGKILL (some by SIGTERM) in one phase after the other, and resumed, until one ends; phases are measured first
in a run that nobody kills, and what comes out is compared with that run. After every kill each file must be whole.
A round that is done is kept in `--home`, so that a call that was cut off goes on.
"""

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from faulting import chains, references

ROUNDS = ["train:plain", "search", "train:averaged", "grid", "train:collapsing", "export", "train:track", "predict"]
COLUMNS = ("kills", "half", "equal", "lost", "repeated", "corrupt")
TITLES = ("killed", "while", "kills", "in a write", "ended bit-equal", "units lost", "units repeated", "corrupt files")


def played(seed: int, home: Path) -> dict[str, Any]:
    """One round: its kills by phase, and all that is wrong."""
    kept = home / "rounds" / f"{seed}.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    kind, _, variant = ROUNDS[seed % len(ROUNDS)].partition(":")
    place = home / "killed" / str(seed)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    known = references.References(home)
    found = chains.KINDS[kind](known, place, random.Random(seed), variant).play()
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(found, indent=1))
    if not found["wrong"]:
        shutil.rmtree(place)
    return found


def table(rounds: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each command and phase, and the sums."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for found in rounds:
        for phase, counts in found["phases"].items():
            sums.setdefault((found["kind"], phase), Counter()).update(counts)
    total: Counter[str] = sum(sums.values(), Counter())
    lines = [*sorted(sums.items()), (("all", ""), total)]
    return [[*names, *(str(counts[key]) for key in COLUMNS)] for names, counts in lines]


def main() -> int:
    """Play rounds until there were enough kills; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="play rounds until there were so many")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next has the next")
    parser.add_argument("--rounds", type=int, default=10_000, help="of these, play at most so many that are not kept")
    parser.add_argument("--home", type=Path, default=Path("runs/faults"))
    args = parser.parse_args()
    home, seed, new = args.home.resolve(), args.seed, 0
    rounds: list[dict[str, Any]] = []
    while sum(found["count"] for found in rounds) < args.kills:
        fresh = not (home / "rounds" / f"{seed}.json").is_file()
        if fresh and new == args.rounds:
            break
        new += fresh
        rounds.append(played(seed, home))
        found = rounds[-1]
        state = "; ".join(found["wrong"]) or "all as it should be"
        print(f"round {seed}, {ROUNDS[seed % len(ROUNDS)]}: {found['count']} kills, {state}", flush=True)
        seed += 1
    rows = [list(TITLES), ["---"] * len(TITLES), *table(rounds)]
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return 1 if any(found["wrong"] for found in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
