"""The configurations that come with the package: a bare name such as `tier1` stands for one, wherever it is called.

They are the folder configs/ of the repository, which the build puts beside this package's modules (setup.py).
"""

import os
from pathlib import Path

from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError
from cloudml_tf.utils.suggest import did_you_mean

SHIPPED = {
    "tutorial": "a small network on eight short simulated flights: seconds to train",
    "tier1": "the validation experiment on simulated flights: minutes to train",
    "tier1_base": "the same for the height of cloud bases, on simulated flights whose frames show parallax",
    "tier1_base_thermal": "tier1_base with a thermal camera: brightness temperature, no sun",
    "example": "a tinier network on fewer minutes of simulated flights",
    "flights-swath": "simulated flights as scenes (first: `cloudml scenes --config flights-swath`)",
    "les": "large-eddy-simulation clouds with 3-D radiative transfer (in the folder CLOUDML_SHARED)",
    "les-swath": "the same clouds as whole scenes: a value for every pixel",
    "les3d": "cloud base and top from the motion between frames (in the folder CLOUDML_SHARED)",
    "pretrain": "les, with the encoder pretrained on all frames",
    "search": "for `cloudml search`: 20 trials around tier1",
    "search_heights": "for `cloudml search`: frames, their spacing and attention around tier1_base",
    "ablation": "for `cloudml ablate`: frames, overweighting, pretraining and further inputs over five seeds",
    "ablation_heights": "for `cloudml ablate`: frames, their spacing, attention, geometry and λ around tier1_base",
    "reproduce": "for `cloudml reproduce`: the reference recipe's collapsed runs and its remedy",
}


def folder() -> Path:
    """The folder of the shipped configurations: inside of an installed package, beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def located(given: str | Path, beside: Path = Path()) -> Path:
    """The file that a path or a shipped name stands for, which need not exist where it is a path.

    Args:
        given: a path; or a bare name, without folder and suffix, that is no path.
        beside: the folder that paths start from.

    Raises `ConfigError` for a bare name that is neither.
    """
    path = beside / given
    if os.path.exists(path) or Path(given).suffix or len(Path(given).parts) != 1:
        return path
    if str(given) in SHIPPED:
        found, own = folder() / f"{given}.json", beside / f"{given}.json"
        if os.path.exists(own) and not os.path.samefile(own, found):
            Console(machine=True).warn(f"{given} is the shipped configuration; for the file that lies here say {own}")
        return found
    raise ConfigError(
        f"{given}: is no file, and no shipped configuration has that name.{did_you_mean(path, '.json')} "
        f"There are {', '.join(SHIPPED)}; `cloudml config list` says what each is."
    )
