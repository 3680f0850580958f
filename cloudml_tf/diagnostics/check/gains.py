"""The findings of `cloudml check` on how bright each flight is beside the others, at equal labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from cloudml_tf.data.readers import hdf5
from cloudml_tf.data.readers.flights import Flight
from cloudml_tf.diagnostics.check.findings import Advice, Finding, setting
from cloudml_tf.diagnostics.gain import Gain

DARK, BRIGHT = 0.83, 1.2  # beyond, a flight's level is another one for a network of the others
LEAST_STD, MOST_STD = 0.05, 0.3  # of the gain that is varied in training


def gain(found: Gain, flight: Flight, advice: Advice) -> Finding:
    """A flight that is brighter or darker than the others at equal labels."""
    channel = advice.config.data.camera.channels[found.channel]
    with hdf5.open_file(flight.camera_path) as file:
        scale = float(np.ravel(file[channel].attrs.get("scale_factor", 1.0))[0])
    evidence = (
        f"{flight.name}: '{channel}' is {found.ratio:.2f} times as bright as in the other flights at equal "
        f"{found.at_equal}; they differ by {np.expm1(found.scatter):.0%} among themselves"
    )
    action = f"set the attribute scale_factor of '{channel}' in {flight.camera_path} to about {scale / found.ratio:.3g}"
    action += f" (now {scale:g}), {advice.leave_out(flight.name)}"
    if found.at_equal == "labels":
        action += "; labels of another unit or scale look the same: compare their mean with that of the other flights"
    return Finding("problem", "gain", evidence, action)


def gains_apart(gains: Sequence[Gain], parts: Mapping[str, Sequence[str]]) -> list[Finding]:
    """How similar the flights are, where none is an outlier; those that are too far for a network of the others."""
    if not gains:
        return []
    ratios = [gain.ratio for gain in gains]
    among = " and ".join(sorted({gain.at_equal for gain in gains}))
    evidence = f"brightness at equal {among} is {min(ratios):.2f} to {max(ratios):.2f} of that of the other flights"
    far = {gain.flight: gain.ratio for gain in gains if gain.at_equal == "labels" and not DARK < gain.ratio < BRIGHT}
    if not far:
        return [Finding("ok", "gain", evidence)]
    ranked = sorted(far.items(), key=lambda item: -abs(np.log(item[1])))
    told = ", ".join(f"{name} {ratio:.2f}" + _in(parts.get(name, [])) for name, ratio in ranked)
    most = max(abs(np.log(ratio)) for ratio in far.values())
    spread = round(float(np.clip(most / 1.5, LEAST_STD, MOST_STD)), 2)
    action = (
        "a network of the other flights ranks the clouds of such a flight and has their level wrong: R² falls far "
        f"under r². Look at gain, exposure and surface there, try {setting('augmentation.gain_std', spread)}, and "
        "correct level and scale by `cloudml calibrate` with a few labels of the flight"
    )
    return [Finding("warning", "gain", f"{evidence}; outside of {DARK} to {BRIGHT}: {told}", action)]


def _in(parts: Sequence[str]) -> str:
    return f" ({' and '.join(parts)})" if parts else ""
