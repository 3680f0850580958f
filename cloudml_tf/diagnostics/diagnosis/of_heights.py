"""Failures of heights: frames that show none, wind, attitude, and a network that looks at none of it.

Each rule returns a finding or None; all of them are for targets that are heights.
"""

import math

from cloudml_tf.diagnostics.diagnosis.evidence import HELD_OUT, Attitude, Evidence
from cloudml_tf.diagnostics.diagnosis.failure import Failure, overrides

LEAST_PX_PER_KM = 1.0  # between the outermost frames
LEAST_FOLLOWED = 0.3  # share of labels whose cloud other frames show at its place
CALMER = 0.9  # another attitude leaves less than this share of the restlessness
RESTLESS_PX = 0.5  # with an attitude that is not recorded
CERTAIN = 4.0  # standard errors
READ_WITHIN = 0.3  # r within flights
UNMOVED = 0.5  # change of the predictions over their spread, when what shows the height is spoilt


def no_parallax(e: Evidence) -> Failure | None:
    """Frames in which a height cannot be seen."""
    seen = e.probes.parallax
    if seen is None or e.good:
        return None
    if seen.px_per_km < LEAST_PX_PER_KM:
        why = seen.why or f"1 km of height moves a cloud by {seen.px_per_km:.2f} px between the outermost frames"
        evidence = [f"nothing shows a height: {why}"]
        remedy = (
            "Name altitude, ground speed and pixel in data.geometry, use more frames, or frames further apart that "
            "still overlap. Without them only the looks of a cloud say its height, and they differ by flight."
        )
    elif seen.followed < LEAST_FOLLOWED:
        evidence = [
            f"other frames show the cloud where its height puts it at {seen.followed:.0%} of the training labels"
        ]
        remedy = (
            "Frames do not overlap, have no texture, or move otherwise than data.geometry says: check ground_speed, "
            "pixel_m, altitude and forward, and inspect a sequence."
        )
    else:
        return None
    return Failure(
        "no parallax", tuple(evidence), remedy, overrides(e, temporal_frames=max(e.config.temporal_frames, 7))
    )


def wind(e: Evidence) -> Failure | None:
    """Clouds that drift otherwise than the wind of the files says: it lifts or lowers a flight as a whole."""
    seen = e.probes.parallax
    if seen is None or seen.px_per_km == 0.0:
        return None
    each, drift, limit = seen.km_per_m_s, seen.drift_m_s, e.wind_error_m_s
    strong = math.sqrt(sum(v * v for v in drift.values()) / max(len(drift), 1))
    aside, biased = strong > limit, _biased(e, each)
    if not aside and not biased:
        return None
    evidence = []
    if aside:
        flight, most = max(drift.items(), key=lambda item: abs(item[1]))
        evidence.append(
            f"clouds drift across the track by {strong:.1f} m/s (root mean square of the flights; {most:+.1f} on "
            f"{flight}) beyond the wind of the files"
        )
    evidence += biased
    evidence += [f"the wind is unknown, or zero, on {', '.join(seen.calm)}"] if seen.calm else []
    evidence.append(f"each m/s along the track counts as {each:.2f} km of height")
    remedy = (
        "Name the clouds' wind, of a forecast or reanalysis at their level, in data.geometry.wind_along and "
        "wind_across, and check its signs; where wind is known, check drift or course (3 degrees look like 10 m/s), "
        "ground_speed and altitude."
    )
    return Failure("wind", tuple(evidence), remedy)


def _biased(e: Evidence, km_per_m_s: float) -> list[str]:
    """Held-out flights that are read well, but for a shift that takes a wind several times its error."""
    found = []
    for part in (name for name in HELD_OUT if name in e.parts):
        for flight, bias in e.shifts_km(part).items():
            scores = e.per_flight[part][flight]
            r, share = scores["correlation"] or 0.0, scores["n"] / e.parts[part].n
            error = (1 - r * r) / math.sqrt(max(share * e.parts[part].n_eff - 3, 1))
            if r - 2 * error > READ_WITHIN and abs(bias) > e.wind_error_m_s * km_per_m_s:
                found.append(
                    f"{flight} ({part}) is read with r {r:.2f} and a bias of {bias:+.2f} km, as by a wind along the "
                    f"track that is {abs(bias) / km_per_m_s:.1f} m/s wrong"
                )
    return found


def attitude(e: Evidence) -> Failure | None:
    """Roll or pitch with a wrong sign, of another instrument, or not recorded while the camera moves about."""
    seen = e.probes.parallax
    if seen is None or seen.followed < LEAST_FOLLOWED:
        return None
    evidence: list[str] = []
    wanted: dict[str, object] = {}
    for angle in seen.attitude:
        better = _better(angle)
        if better is not None:
            evidence.append(
                f"frames are restless by {angle.restless_px:.2f} px with the {angle.angle} of the files, and by "
                f"{angle.other_px[better]:.2f} px with it {_WORDS[better]}"
            )
            wanted |= _other(e, angle.angle, better)
        elif not angle.recorded and angle.restless_px > RESTLESS_PX:
            evidence.append(
                f"the {angle.angle} is not recorded, or constant, and frames are restless by {angle.restless_px:.2f} px"
            )
    if not evidence:
        return None
    remedy = (
        "Check sign, unit and clock of roll and pitch in data.geometry: with the right ones frames lie on one another. "
        "Where the wind is off as well, it may be data.geometry.right."
    )
    return Failure("attitude", tuple(evidence), remedy, overrides(e, **wanted))


_WORDS = {"turned": "the other way round", "level": "taken as 0"}


def _better(angle: Attitude) -> str | None:
    """The attitude that calms the frames most, beyond doubt."""
    certain = [
        key
        for key, (gain, error) in angle.gain.items()
        if gain > CERTAIN * error and angle.other_px[key] < CALMER * angle.restless_px
    ]
    return min(certain, key=lambda key: angle.other_px[key], default=None)


def _other(e: Evidence, angle: str, better: str) -> dict[str, object]:
    """The setting of another attitude."""
    if better == "level":
        return {f"data__geometry__{angle}": None}
    signs = {"roll": ("right wing down", "left wing down"), "pitch": ("nose up", "nose down")}[angle]
    now = getattr(e.config.data.geometry, f"{angle}_positive")
    return {f"data__geometry__{angle}_positive": signs[1 - signs.index(now)]}


def learned_the_flight(e: Evidence) -> Failure | None:
    """A network that tells flights apart by their looks, and reads no height within them."""
    train = e.within("train")
    held, names = e.within(*HELD_OUT), [name for name in HELD_OUT if name in e.parts]
    if not e.config.target.quantity.is_height or e.good or train is None or held is None:
        return None
    blind = {what: moved for what, moved in e.probes.moved.items() if moved < UNMOVED}
    unread = held.r + 2 * held.error < 2 * READ_WITHIN and held.r < READ_WITHIN and held.r2 < 0.1
    if not blind and not (unread and e.parts["train"].r > 2 * READ_WITHIN):
        return None
    evidence = [
        f"within the flights of {' and '.join(names)}: r {held.r:.2f} ± {2 * held.error:.2f}, R² {held.r2:.2f}",
        f"training: r {e.parts['train'].r:.2f} over all flights, {train.r:.2f} within them",
    ]
    evidence += [f"its predictions change by {moved:.0%} of their spread with {what}" for what, moved in blind.items()]
    sweep = [e.baselines["plane_sweep"][p] for p in names if p in e.baselines.get("plane_sweep", {})]
    if sweep:
        r2, own = (sum(p.r2 for p in parts) / len(parts) for parts in (sweep, e.held_out))
        if r2 > own:
            evidence.append(
                f"the plane sweep, which cannot learn a flight, has R² {r2:.2f} there, the network {own:.2f}"
            )
    remedy = (
        "A network that compares frames at candidate heights, model.architecture 'cost_volume', with "
        "augmentation.height_shift_km: docs/heights.md. One that is so already wants a better geometry, or flights."
    )
    return Failure("learned the flight", tuple(evidence), remedy)
