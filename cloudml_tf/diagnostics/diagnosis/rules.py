"""The rules in the order of causes: an earlier failure would cause the later ones.

A wrong clock leaves no correlation, without correlation every spread is noise, a wrong learning rate collapses, and so
on; so the first failure is the main one.

To add one: a rule in `of_data`, `of_flights`, `of_heights` or `of_training`, its place in `RULES`, what it reads in
`evidence`, `probes` or `parallax`, a row in docs/diagnose.md, and a planted case in benchmarks/planted.
"""

from collections.abc import Callable

from cloudml_tf.diagnostics.diagnosis import of_data, of_flights, of_heights, of_training
from cloudml_tf.diagnostics.diagnosis.evidence import Evidence
from cloudml_tf.diagnostics.diagnosis.failure import Failure

HEALTHY, UNCLEAR = "healthy", "unclear"
RULES: tuple[Callable[[Evidence], Failure | None], ...] = (
    of_training.not_finite, of_flights.frozen_camera, of_data.bad_clock, of_flights.foreign_labels, of_data.leak,
    of_heights.no_parallax, of_heights.wind, of_heights.attitude, of_heights.learned_the_flight,
    of_flights.unseen_labels, of_data.no_correlation, of_training.small_start, of_training.rate_too_high,
    of_training.rate_too_low, of_training.over_regularised, of_data.no_labels, of_flights.flight_shift,
    of_training.collapse, of_training.inflation, of_data.bias, of_data.too_few_labels, of_training.not_there_yet,
)  # fmt: skip
# Their consequences cannot be evaluated; and findings that others explain.
ALONE = (
    "frozen camera", "foreign labels", "bad clock", "no parallax", "attitude", "learned the flight", "unseen labels",
    "no correlation", "too few labels",
)  # fmt: skip
EXPLAINED = {
    "bias": ("wind", "flight shift"),
    "flight shift": ("wind",),
    "collapse": ("flight shift",),
    "inflation": ("flight shift",),
}


def findings(e: Evidence) -> list[Failure]:
    """All findings, the main cause first, each name once."""
    found: list[Failure] = []
    for rule in RULES:
        finding = rule(e)
        names = [f.name for f in found]
        if finding is not None and finding.name not in names and not set(EXPLAINED.get(finding.name, ())) & set(names):
            found.append(finding)
            if finding.name in ALONE:
                break
    return found
