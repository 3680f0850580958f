"""Every script of benchmarks/ runs, at its smallest size: `make test-all`. Figures are not looked at here.

Each command runs in a temporary folder, with the scripts' own options and nothing else. A script without a line in
`COMMANDS` fails the first test, which `make test` runs too.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_les import SHARED

ROOT = Path(__file__).parent.parent
EXAMPLE, LES3D = str(ROOT / "configs/example.json"), str(ROOT / "configs/les3d.json")
SHORT = "data.simulation.frames_per_flight"
LES, LES_SCENES, HEIGHTS = "data/les/flights", "data/les/scenes_200m.h5", "data/les3d/flights"
SWATH = ["training.max_epochs=1", "training.sequences_per_epoch=8", "model.widths=[4,4]"]


def sets(*pairs: str) -> list[str]:
    """Options for scripts that take one `--set` for each value."""
    return [word for pair in pairs for word in ("--set", pair)]


ONE_EPOCH = sets("training.max_epochs=1", f"{SHORT}=300", "evaluation.bootstrap_samples=100")
PRETRAINED = sets(
    "pretraining.max_epochs=2",
    "pretraining.frames_per_epoch=64",
    "training.max_epochs=1",
    "training.sequences_per_epoch=64",
)
COMMANDS: dict[str, list[list[str]]] = {  # script: arguments of one call after the other, in one folder
    "archive": [
        ["--home", "archive", "--kill", "--flights", "4", "--frames", "60"],
        ["--home", "archive", "--prepare", "--frames", "60"],
    ],
    "calibrate": [["--flights", "2", "--frames", "300", "--labels", "5", "--epochs", "1"]],
    "check_faults": [["--seeds", "1"]],
    "collapse": [["--out", "pictures", *ONE_EPOCH]],
    "coverage": [["--members", "2", "--frames", "240", "--out", "pictures", "--set", "training.max_epochs=1"]],
    "diagnose_cases": [["--home", "cases", "--only", "tiny output"]],
    "export_parity": [["--config", EXAMPLE, "--epochs", "1", "--sequences", "20"]],
    "faults": [["--kills", "1", "--rounds", "1", "--seed", "1", "--home", "faults"]],
    "flight_swath": [["--variants", "line, windows", "--folder", "runs", "--set", *SWATH]],
    "foreign": [["--out", "flights", "--flights", "2"]],
    "fuzz": [["--target", name, "--cases", "20", "--without-atheris"] for name in ("config", "flights")],
    "gpu_step": [["--estimate"], ["--tiny", "--rounds", "1", "--steps", "2"]],
    "heights": [[LES3D, "--home", "heights", "--out", "out", "--flights", "cu01", "--set", "training.max_epochs=1"]],
    "heights_elsewhere": [["run", "--flights", "1", "--frames", "60"]],
    "heights_preset": [[str(ROOT / "configs/tier1_base.json"), *sets(f"{SHORT}=120")]],
    "inference": [[EXAMPLE, "--sequences", "32", "--batch-size", "16", "--rounds", "1"]],
    "input": [[EXAMPLE, "--rounds", "1", "--steps", "2"]],
    "lambda_sweep": [["--out", "pictures", "--home", "runs", *ONE_EPOCH]],
    "les_failures": [["--folder", "runs", "-o", "pictures"]],
    "les_pretraining": [["--final", "--members", "2", "--jobs", "1", "--home", "runs", *PRETRAINED]],
    "les_table": [
        ["--fold", "1", "--folder", "runs", "--set", *SWATH],
        ["--final", "--folder", "runs", "--set", *SWATH],
    ],
    "long_flights": [["--frames", "200", "400", "--rounds", "1"]],
    "losses": [["--out", "pictures"]],
    "new_campaign": [["--out", "pictures", "--seeds", "1", "--labels", "10", "20", "--frames", "900", "--epochs", "2"]],
    "next_flight": [["--home", "folds", "--seeds", "1", "--flights", "6", *sets("training.max_epochs=1")]],
    "parity_r2": [["cases", "cases.npz"], ["check", "cases.npz"]],
    "planted_ruin": [
        ["--home", "runs", "--set", "next-flight", "--only", "a profile in 40 s", "--check"],
        ["--home", "runs", "--remedies", "--only", "m as it is"],
    ],
    "pretrained_frames": [["--seeds", "1", "2", "--frames", "3", *PRETRAINED, *sets(f"{SHORT}=300")]],
    "replicas": [[]],
    "search_resume": [["--home", "search", "--trials", "3"]],
    "seeds": [[EXAMPLE, "--seeds", "1", *ONE_EPOCH]],
    "shared_frames": [[EXAMPLE, "--run-length", "4", "--batch-size", "16", "--steps", "2", "--rounds", "1"]],
    "shift": [["--seeds", "1", "--flights", "2", "--frames", "300"]],
    "soak": [["--minutes", "0.01"]],
    "step": [["--rounds", "1", "--steps", "2"]],
    "time_to_tier": [
        ["--seeds", "1", "--only", "track", "ours", "seed", *ONE_EPOCH],
        ["--seeds", "1", "--only", "ours", "peer", *ONE_EPOCH],
    ],
    "track": [["--seeds", "2", *ONE_EPOCH]],
}
NEEDS = {  # what a call needs besides this package: a module to import, or a file below the shared folder
    ("gpu_step", 1): ("jax", "torch"),
    ("step", 0): ("torch",),
    ("time_to_tier", 1): ("torch",),
    ("parity_r2", 1): ("tensorflow_addons",),
    ("heights", 0): (HEIGHTS,),
    ("les_pretraining", 0): (LES,),
    ("les_table", 0): (LES_SCENES,),
    ("les_failures", 0): (LES_SCENES,),
}


def call(script: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder."""
    environment = {**os.environ, "CLOUDML_SHARED": str(SHARED), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def missing(script: str, number: int) -> list[str]:
    """What the call lacks here."""
    needs = NEEDS.get((script, number), ())
    return [name for name in needs if not ((SHARED / name).exists() if "/" in name else find_spec(name))]


def prepare(script: str, folder: Path) -> None:
    """Write what a script expects to find from another command."""
    if script == "flight_swath":
        options = sets(f"{SHORT}=400")
        command = ["scenes", "--config", str(ROOT / "configs/flights-swath.json"), *options]
        subprocess.run([sys.executable, "-m", "cloudml_tf", *command], cwd=folder, check=True, capture_output=True)
    if script == "heights_elsewhere":
        options = [*ONE_EPOCH, "--run-dir", "run"]
        command = ["train", str(ROOT / "configs/tier1_base.json"), *options]
        subprocess.run([sys.executable, "-m", "cloudml_tf", *command], cwd=folder, check=True, capture_output=True)
    if script == "les_failures":
        done = call("les_table", ["--all", "--folder", "runs", "--set", *SWATH], folder)
        assert done.returncode == 0, done.stderr[-3000:]


def test_every_script_has_a_smallest_size() -> None:
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == set(COMMANDS)
    assert all(number < len(COMMANDS[script]) for script, number in NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMANDS)
def test_a_script_runs_at_its_smallest_size(script: str, tmp_path: Path) -> None:
    lacking = {number: missing(script, number) for number in range(len(COMMANDS[script]))}
    if all(lacking.values()):
        pytest.skip(f"{script}.py needs {', '.join(lacking[0])}")
    prepare(script, tmp_path)
    for number, arguments in enumerate(COMMANDS[script]):
        if not lacking[number]:
            done = call(script, arguments, tmp_path)
            assert done.returncode == 0, f"{arguments}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
            assert done.stdout
