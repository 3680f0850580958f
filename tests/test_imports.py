"""Who may import what: readers know no TensorFlow, core modules know Keras and NumPy only, help loads neither."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cloudml_tf

PACKAGE = Path(cloudml_tf.__file__).parent
CORE = [
    "models",
    "anatomy",
    "dense",
    "layers",
    "nadir",
    "losses",
    "distributions",
    "metrics",
    "callbacks",
    "finiteness",
    "optimizers",
    "monitors",
    "pretraining",
]
OURS_FOR_CORE = {
    f"cloudml_tf.{name}"
    for name in (
        "layers",
        "nadir",
        "anatomy",
        "losses",
        "distributions",
        "moments",
        "monitors",
        "replicas",
        "gradients",
        "compiled",
    )
}
STANDARD = sys.stdlib_module_names


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """Names of the modules that a file imports; with `everywhere` also inside functions."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module == "cloudml_tf" else node.module for alias in node.names
            }
    return found


@pytest.mark.parametrize(
    "path",
    sorted(path for room in ("data", "simulation", "inspecting") for path in (PACKAGE / room).glob("*.py")),
    ids=lambda p: p.name,
)
def test_readers_splits_and_scaling_know_no_keras(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"tensorflow", "keras", "wandb", "matplotlib", "sklearn", "xarray"}


@pytest.mark.parametrize("name", CORE)
def test_core_modules_know_keras_and_numpy_only(name: str) -> None:
    for module in imported(PACKAGE / f"{name}.py"):
        root = module.split(".")[0]
        assert root in {"keras", "numpy"} or root in STANDARD or module in OURS_FOR_CORE, module


def test_only_a_few_rooms_name_tensorflow() -> None:
    rooms = {
        path.stem for path in PACKAGE.rglob("*.py") if any(m.split(".")[0] == "tensorflow" for m in imported(path))
    }
    core = {"replicas", "gradients", "compiled"}
    several = {"devices", "distribute"}
    assert rooms == core | several | {
        "feed",
        "quiet",
        "training",
        "tracking",
        "export",
        "convert",
        "formats",
        "parity",
        "trust",
    }


HEAVY = ("keras", "tensorflow", "wandb", "sklearn", "matplotlib", "xarray")
LOADED = "import sys; {}; " + f"print([m for m in {HEAVY} if m in sys.modules])"


@pytest.mark.parametrize(
    "code",
    [
        "import cloudml_tf; dir(cloudml_tf)",
        "import cloudml_tf.data.flights, cloudml_tf.data.splits, cloudml_tf.pipeline",
        "from cloudml_tf.cli import build_parser; [build_parser(v).format_help() for v in "
        "('train', 'evaluate', 'export', 'simulate', 'check', 'search', 'ensemble', 'predict', 'init', 'config')]",
    ],
)
def test_the_table_of_contents_readers_and_help_load_no_keras(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED.format(code)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_table_of_contents_is_true() -> None:
    for name in cloudml_tf.__all__:
        assert getattr(cloudml_tf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        cloudml_tf.nonsense  # noqa: B018
    assert "R2" in dir(cloudml_tf)
