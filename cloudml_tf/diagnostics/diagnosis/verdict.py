"""Find out why a run failed.

Scores, history and configuration are read from the run folder, finished or cut off; where the flight files can still be
read, they are checked too (clocks, brightness, shared labels). The rules are in `rules.py` beside this file.
"""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudml_tf.config.run_folder import WHOLE, read_history, read_json, read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.data.prepare import Prepared
from cloudml_tf.diagnostics.between_flights import REPEATED
from cloudml_tf.diagnostics.diagnosis.evidence import HELD_OUT, Evidence, Probes, pooled
from cloudml_tf.diagnostics.diagnosis.rules import HEALTHY, UNCLEAR, findings
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import RunError

NOTED = 0.1  # of s - r or bias/std, which costs 0.01 of R²; and of R² from validation to test
LOW_R = 0.5  # below, the clocks are checked after a training; also where one flight has far less than the other


def diagnose(
    run: Path,
    evaluation: Path | None = None,
    console: Console | None = None,
    quick: bool = False,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Verdict, summary and findings of a run folder.

    Args:
        run: the folder; without metrics.json it counts as cut off.
        evaluation: a folder of `cloudml evaluate` on a flight that the run has not seen.
        console: shows progress.
        quick: do not read the flight files.
        overrides: changes of the configuration, for flights that have been moved.
    """
    whole = run / WHOLE
    if whole.is_file() and "folds" in read_json(whole):
        folds = ", ".join(sorted(p.parent.name for p in run.glob("*/config.json")))
        raise RunError(f"{run}: holds the folds of a leave-one-flight-out run; diagnose one of them: {folds}.")
    config = read_run(run, overrides)[0]
    description = _read_whole(run / "data.json", "split")
    metrics = _read_whole(whole, "train", "val", "test", "tier") if whole.is_file() else None
    history = read_history(run) if (run / "history.csv").is_file() else []
    other = None if evaluation is None else _read_whole(evaluation / "evaluation.json", "test")
    probes = Probes()
    if not quick:
        from cloudml_tf.diagnostics.diagnosis.probes import look

        probes = look(run, config, description, metrics is not None and "baselines" in metrics, console or Console())
    return judge_run(Evidence.of(metrics, history, config, description, probes, other))


def _read_whole(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file with these keys. Raises `RunError`."""
    found = read_json(path)
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise RunError(f"{path}: has no {', '.join(missing)}. The folder is damaged, or not a run folder.")
    return dict(found)


def diagnose_training(
    metrics: dict[str, Any], history: list[dict[str, float]], config: Config, prepared: Prepared
) -> dict[str, Any]:
    """Diagnose at the end of a training, from what is in memory."""
    from cloudml_tf.diagnostics.diagnosis.probes import clocks_of, frozen_of, look_at

    probes, description = look_at(prepared, config), prepared.description()
    evidence = Evidence.of(metrics, history, config, description, probes)
    if evidence.lost or any(part.r < LOW_R for part in evidence.held_out):
        probes = replace(probes, clock=clocks_of(prepared, config), frozen=frozen_of(prepared, config))
    return judge_run(replace(evidence, probes=probes))


def judge_run(evidence: Evidence) -> dict[str, Any]:
    """Turn evidence into what is shown and stored."""
    found = findings(evidence)
    if found:
        verdict, summary = found[0].name, found[0].evidence[0]
    elif evidence.healthy:
        verdict, summary = HEALTHY, _how_healthy(evidence)
    else:
        verdict, summary = UNCLEAR, _what_is_known(evidence)
    return {
        "verdict": verdict,
        "summary": summary,
        "findings": [finding.to_json() for finding in found],
        "notes": [*evidence.probes.notes, *notes(evidence, verdict)],
    }


def _how_healthy(e: Evidence) -> str:
    if not e.finished:
        return f"not finished, but improving: {e.parts['val']}; `cloudml train --resume` continues"
    if e.tier != "none":
        return f"tier {e.tier}; test: {e.parts['test']}"
    held = e.within(*HELD_OUT)
    if e.reads_heights and held is not None and e.km_per_m_s is not None:
        shifts = {flight: km for part in HELD_OUT for flight, km in e.shifts_km(part).items()}
        flight, most = max(shifts.items(), key=lambda item: abs(item[1]))
        return (
            f"no tier, but it reads heights within held-out flights: r {held.r:.2f}, R² {held.r2:.2f}; largest bias "
            f"{most:+.2f} km on {flight}, as by a wind that is {abs(most) / e.km_per_m_s:.1f} m/s wrong"
        )
    name, r2 = e.best_on_test
    return (
        f"no tier, but it finds all that the baselines find on the test ({name}: R² {r2:.2f}); test: {e.parts['test']}"
    )


def _what_is_known(e: Evidence) -> str:
    if not e.parts:
        return "no epoch was finished, so nothing is known; run it again, or `cloudml train --resume`"
    shown = "; ".join(f"{name}: {part}" for name, part in e.parts.items())
    if e.lost:
        return f"{_where_lost(e)} ({shown})"
    name, r2 = e.best_on_test
    shown += f"; {name} on the test: R² {r2:.2f}" if name != "none" else ""
    if e.shifted:
        test = e.parts["test"]
        return (
            f"no tier: level and scale are wrong on the test flights. R² is {test.r2:.2f}, and a straight line through "
            f"these predictions would have r² = {test.r**2:.2f} ({shown}); `cloudml calibrate` fits that line to a few "
            "labels of a flight"
        )
    return f"no tier, and no known rule explains it ({shown})"


def _where_lost(e: Evidence) -> str:
    flights = ", ".join(name for part in e.lost for name in e.description["split"][part]["flights"])
    return f"r is far lower on flight {flights} than on others: inspect its images, clock and pointing"


def notes(e: Evidence, verdict: str) -> Iterator[str]:
    """Remarks that are not failures."""
    test = e.parts.get("test")
    if verdict == HEALTHY and test is not None:  # the terms of R² = r² - (s-r)² - b² that cost something
        if test.gap > NOTED:
            yield f"test: s exceeds r by {test.gap:.2f}, which costs {test.gap**2:.3f} of R²"
        if abs(test.b) > NOTED:
            yield f"test: the bias of {test.b:+.2f} std costs {test.b**2:.3f} of R²"
    if "val" in e.parts and test is not None and e.parts["val"].r2 - test.r2 > NOTED:
        yield (
            f"R² {e.parts['val'].r2:.2f} on validation, {test.r2:.2f} on test: the weights were chosen on validation, "
            "or the test flight differs from it; report the test score; `cloudml train --lofo` evaluates each flight"
        )
    yield from (
        f"{seen.repeated:.0%} of the labels of {name} are one value: they teach a constant; inspect its lidar file"
        for name, seen in e.probes.flights.items()
        if seen.repeated > REPEATED
    )
    yield from (f"a sun outside the training range: {text}" for text in e.description.get("sun_outside_training", []))
    if verdict == HEALTHY and e.lost:
        yield _where_lost(e)
    split = e.description["split"]
    if set(split["train"]["flights"]) & set(split["test"]["flights"]) and "held_out" not in e.parts:
        yield (
            "training and test are of the same flights: the score holds for these alone. Evaluate the run on another "
            "flight with `cloudml evaluate`, and give its folder with --evaluation"
        )
    if not e.finished:
        yield "the run was cut off; scores are those of its best epoch on the validation split"
    if e.held_out and not e.baselines:
        yield f"no baselines to compare with; the network's r is {pooled(e.held_out)[0]:.2f}"


def print_diagnosis(console: Console, found: dict[str, Any]) -> None:
    """Print verdict, evidence and remedies."""
    console.say(f"diagnosis: {found['verdict']}", style="bold")
    if not found["findings"]:
        console.say(f"  {found['summary']}")
    for number, finding in enumerate(found["findings"]):
        if number:
            console.say(f"also: {finding['name']}", style="bold")
        for text in finding["evidence"]:
            console.say(f"  - {text}")
        console.say(f"  {finding['remedy']}")
        if finding["set"]:
            console.say(f"  try: {_as_options(finding['set'])}")
    for text in found["notes"]:
        console.say(f"note: {text}")


def print_shortly(console: Console, found: dict[str, Any], run: Path) -> None:
    """Print the end of a training: one line for a healthy run, the main finding for others."""
    if not found["findings"]:
        console.say(f"diagnosis: {found['verdict']} ({found['summary']})")
        return
    main, *others = found["findings"]
    also = f"; also {', '.join(finding['name'] for finding in others)}" if others else ""
    console.say(f"diagnosis: {main['name']}{also}", style="bold")
    console.say(f"  {main['evidence'][0]}")
    console.say(f"  {main['remedy']}")
    if main["set"]:
        console.say(f"  try: {_as_options(main['set'])}")
    console.say(f"  details: cloudml diagnose {run}")


def _as_options(pairs: list[str]) -> str:
    return " ".join(f"--set {shlex.quote(pair)}" for pair in pairs)
