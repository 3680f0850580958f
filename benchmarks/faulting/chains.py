"""One command killed again and again until it ends, and what became of it."""

import json
import random
import re
import signal
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudml_tf.config.run_folder import CHECKPOINT, PREVIOUS, has_begun
from cloudml_tf.train.checkpoint import load
from faulting import checks
from faulting.killing import Changes, Ended, Moment, Ready, Units, command, killed_at, stamp, stamps
from faulting.references import References

WRITE_S = 0.02  # about as long as a small file takes to be written and synced


class Chain(ABC):
    """Kills one after the other. A subclass says what is run, when it is killed and what must come out."""

    kind = ""
    ends = True  # a command that has ended has nothing left to do, if it is called again

    def __init__(self, known: References, place: Path, rng: random.Random, variant: str) -> None:
        self.known, self.place, self.rng, self.variant = known, place, rng, variant
        self.phases: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []
        self.out = place / "run"

    @abstractmethod
    def words(self) -> list[str]:
        """The command as it is called next."""

    @abstractmethod
    def moments(self) -> list[Callable[[], Moment]]:
        """What makes each kill's moment, when it is its turn."""

    @abstractmethod
    def units(self) -> Units:
        """What is finished by now."""

    @abstractmethod
    def amiss(self) -> list[str]:
        """How the end differs from that of the run that was not killed."""

    def play(self) -> dict[str, Any]:
        """All kills, then to the end."""
        for make in self.moments():
            if not self._step(make()).killed and self.ends:
                break
        else:
            self._step(None)
        amiss = self.amiss()
        left = [path for path in self.place.rglob(".*") if path.name.startswith((".writing-", ".old-", ".lock"))]
        self.wrong += amiss + [f"{path}: left behind" for path in left]
        for counts in self.phases.values():
            counts["equal"] = 0 if amiss else counts["kills"]
        count = sum(counts["kills"] for counts in self.phases.values())
        return {"kind": self.kind, "count": count, "wrong": self.wrong, "phases": self.phases}

    def _step(self, moment: Moment | None) -> Ended:
        """One process, and what it left."""
        before = self.units()
        ended = killed_at(moment, self.words(), self.place / "log.txt", [self.place])
        name = "to the end" if moment is None else moment.name
        broken = checks.corrupt(self.place)
        after = self.units()
        lost = [unit for unit in before if unit not in after]
        again = [unit for unit in before if unit in after and before[unit] != after[unit]]
        if ended.killed:
            found = {"kills": 1, "half": int(ended.half_written), "corrupt": len(broken), "lost": len(lost)}
            self.phases.setdefault(name, Counter()).update({**found, "repeated": len(again)})
        else:
            broken += [f"{name}: lost {lost}"] if lost else []
        self.wrong += broken + [f"{name}: {what}" for what in (*lost, ended.problem) if what]
        return ended

    def spread(self, low: float, high: float) -> float:
        """A time between two, in s."""
        return self.rng.uniform(low, max(high, low))

    def starting(self, until_s: float) -> Moment:
        """Anywhere from the start of Python to the start of the work."""
        return Moment("start, reading", None, self.spread(0.1, until_s))


class Training(Chain):
    """`cloudml train`, resumed until it ends."""

    kind = "train"

    def __init__(self, known: References, place: Path, rng: random.Random, variant: str) -> None:
        super().__init__(known, place, rng, variant)
        self.whole, self.times = known.training(variant)
        self.config = known.config(variant, place)

    def words(self) -> list[str]:
        resume = ["--resume"] if has_begun(self.out) else []
        return command("train", self.config, "--run-dir", self.out, *resume)

    def moments(self) -> list[Callable[[], Moment]]:
        inside = [self.training, self.validation, self.checkpoint]
        some: list[Callable[[], Moment]] = [lambda: self.starting(self.times["begun"]), self.first_steps, *inside]
        some += [self.rng.choice(inside[:2]), self.ended_by_sigterm]
        self.rng.shuffle(some)
        return [*some, self.judging, self.exporting]

    def first_steps(self) -> Moment:
        """While the network is built, and in its first epoch, which is not kept."""
        wait = self.spread(0, self.times["first epoch"] - self.times["begun"])
        return Moment("building, first epoch", (self.out / ".lock").is_file, wait)

    def _after_an_epoch(self) -> Ready:
        return Changes(lambda: stamp(self.out / CHECKPOINT))

    def training(self) -> Moment:
        """In the steps of a later epoch."""
        return Moment("training", self._after_an_epoch(), self.spread(0, self.times["epoch"] - self.times["test"]))

    def validation(self) -> Moment:
        """At the end of a later epoch."""
        begun = self.times["epoch"] - self.times["test"]
        return Moment("validation", self._after_an_epoch(), self.spread(begun, self.times["epoch"]))

    def checkpoint(self) -> Moment:
        """While one is written."""
        ready = Changes(lambda: tuple(self.out.glob(f".writing-*-{CHECKPOINT}")))
        return Moment("writing a checkpoint", ready, self.spread(0, WRITE_S))

    def ended_by_sigterm(self) -> Moment:
        """Anywhere in an epoch."""
        return Moment("training, by SIGTERM", self._after_an_epoch(), self.spread(0, 0.5), signal.SIGTERM)

    def judging(self) -> Moment:
        """Scores, pictures, the report."""
        ready = Changes(lambda: stamp(self.out / "last.weights.h5"))
        return Moment("judging", ready, self.spread(0, self.times["exporting"] - self.times["fitted"]))

    def exporting(self) -> Moment:
        """The export at its end."""
        ready = Changes(lambda: tuple((self.place / "savedmodels").glob(".writing-*")))
        return Moment("exporting", ready, self.spread(0, self.times["end"] - self.times["exporting"]))

    def units(self) -> Units:
        """Epochs that a checkpoint holds; one that is trained again is printed again."""
        kept = [load(self.out / name)["epoch"] for name in (CHECKPOINT, PREVIOUS) if (self.out / name).is_file()]
        log = self.place / "log.txt"
        rows = re.findall(r"^ *(\d+)/\d+ ", log.read_text(), re.M) if log.is_file() else []
        return {f"epoch {n}": rows.count(str(n)) for n in range(1, max(kept, default=0) + 1)}

    def amiss(self) -> list[str]:
        return checks.differences(self.whole, self.out)


class Searching(Chain):
    """`cloudml search`, resumed until it ends."""

    kind = "search"
    pattern, working = "trials/*/result.json", "trials/*/checkpoint.npz"

    def __init__(self, known: References, place: Path, rng: random.Random, variant: str) -> None:
        super().__init__(known, place, rng, variant)
        self.whole, _ = known.searched()

    def words(self) -> list[str]:
        resume = ["--resume"] if (self.out / "search_config.json").is_file() else []
        return command("search", self.known.search(), "--run-dir", self.out, *resume)

    def moments(self) -> list[Callable[[], Moment]]:
        some: list[Callable[[], Moment]] = [lambda: self.starting(5.0), self.within, self.between, self.within]
        self.rng.shuffle(some)
        return [*some, self.between]

    def within(self) -> Moment:
        """While a unit is trained, from its first epoch on."""
        ready = Changes(lambda: stamps(self.out, self.working))
        return Moment("in a unit", ready, self.spread(0, 2.0))

    def between(self) -> Moment:
        """When one has just ended."""
        ready = Changes(lambda: len(self.units()))
        return Moment("after a unit", ready, self.spread(0, 0.3))

    def units(self) -> Units:
        return stamps(self.out, self.pattern)

    def amiss(self) -> list[str]:
        return [] if self.results(self.out) == self.results(self.whole) else ["other results than without kills"]

    def results(self, folder: Path) -> list[Any]:
        """Values and scores of all trials."""
        found = [json.loads(path.read_text()) for path in sorted(folder.glob(self.pattern))]
        return [{key: value for key, value in one.items() if key not in ("seconds", "started")} for one in found]


class Gridding(Searching):
    """`cloudml ablate`, called again until it ends."""

    kind = "ablate"
    pattern, working = "*/seed*/metrics.json", "*/seed*/checkpoint.npz"

    def __init__(self, known: References, place: Path, rng: random.Random, variant: str) -> None:
        Chain.__init__(self, known, place, rng, variant)
        self.whole, _ = known.gridded()

    def words(self) -> list[str]:
        return command("ablate", self.known.grid(), "--jobs", "1", "--run-dir", self.out)

    def amiss(self) -> list[str]:
        """Bit by bit, cell by cell."""
        cells = [str(Path(name).parent) for name in stamps(self.whole, self.pattern)]
        found = [f"{cell}: {what}" for cell in cells for what in checks.differences(self.whole / cell, self.out / cell)]
        return found + ([] if (self.out / "summary.json").is_file() else ["no summary.json"])


class Exporting(Chain):
    """`cloudml export` over an export of one format that lies there."""

    kind = "export"
    ends = False

    def __init__(self, known: References, place: Path, rng: random.Random, variant: str) -> None:
        super().__init__(known, place, rng, variant)
        self.run, _ = known.training("plain")
        self.whole, self.times = known.exported()
        killed_at(None, command("export", self.run, "--format", "savedmodel", "-o", self.out), place / "log.txt", [])

    def words(self) -> list[str]:
        return command("export", self.run, "--format", "savedmodel,litert", "-o", self.out)

    def moments(self) -> list[Callable[[], Moment]]:
        some: list[Callable[[], Moment]] = [self.anywhere, self.writing, self.writing]
        self.rng.shuffle(some)
        return [*some, self.changing, self.changing]

    def anywhere(self) -> Moment:
        """From the start to the end."""
        return self.starting(self.times["end"] - 1.0)

    def writing(self) -> Moment:
        """While the files are written and compared."""
        ready = Changes(lambda: tuple(self.place.glob(".writing-*")))
        return Moment("writing and comparing", ready, self.spread(0, 0.5 * self.times["end"]))

    def changing(self) -> Moment:
        """When the new export takes the old one's place."""
        ready = Changes(lambda: tuple(self.place.glob(".writing-*/model_card.md")))
        return Moment("changing places", ready, self.spread(0, 5 * WRITE_S))

    def units(self) -> Units:
        """Formats that lie there and are what the record says."""
        return dict.fromkeys(checks.formats_of(self.out))

    def amiss(self) -> list[str]:
        ours, theirs = checks.formats_of(self.out), checks.formats_of(self.whole)
        return [] if ours.keys() == theirs.keys() else [f"formats {sorted(ours)} instead of {sorted(theirs)}"]


class Predicting(Chain):
    """`cloudml predict --archive` of all flights, called again until it ends."""

    kind = "predict"

    def __init__(self, known: References, place: Path, rng: random.Random, variant: str) -> None:
        super().__init__(known, place, rng, variant)
        self.run, _ = known.training("plain")
        self.whole, self.times = known.predicted()

    def words(self) -> list[str]:
        return command("predict", self.run, *self.known.flights, "--archive", "-o", self.out)

    def moments(self) -> list[Callable[[], Moment]]:
        some: list[Callable[[], Moment]] = [lambda: self.starting(0.6 * self.times["end"]), self.after, self.writing]
        self.rng.shuffle(some)
        return [*some, self.after, self.writing]

    def after(self) -> Moment:
        """When a flight has just been written."""
        return Moment("after a unit", Changes(lambda: len(self.units())), self.spread(0, 0.5))

    def writing(self) -> Moment:
        """While one is written."""
        ready = Changes(lambda: tuple(self.out.glob(".writing-*.nc")))
        return Moment("writing a unit", ready, self.spread(0, WRITE_S))

    def units(self) -> Units:
        return stamps(self.out, "[!.]*.nc")  # not what is being written

    def amiss(self) -> list[str]:
        found = []
        for name in stamps(self.whole, "*.nc"):
            ours, theirs = (checks.datasets(folder / name) for folder in (self.out, self.whole))
            same = ours.keys() == theirs.keys() and all(checks.same(ours[key], theirs[key]) for key in ours)
            found += [] if same else [name]
        return found


KINDS: dict[str, type[Chain]] = {
    "train": Training,
    "search": Searching,
    "grid": Gridding,
    "export": Exporting,
    "predict": Predicting,
}
