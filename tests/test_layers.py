"""Who may import what: layers, no circles, readers without TensorFlow, a heart of Keras and NumPy."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from structure import (
    PACKAGE,
    ROOT,
    branches_on_the_target,
    circles,
    code_lines,
    imported,
    imports,
    modules,
    names_at_the_root,
)

import cloudml_tf
from cloudml_tf import losses, models
from cloudml_tf.config.data import Lidar
from cloudml_tf.config.model import Loss, Model
from cloudml_tf.config.targets import QUANTITIES, TargetName

# A module imports from its own package, or from packages of a lower rank.
RANK = {
    "utils": 0,
    "nn": 0,
    "losses": 1,
    "metrics": 1,
    "callbacks": 1,
    "models": 2,
    "config": 3,
    "data": 4,
    "evaluation": 5,
    "reports": 6,
    "train": 7,
    "inference": 8,
    "diagnostics": 8,
    "experiments": 9,
    "commands": 10,
}
HEART = ("nn", "losses", "metrics", "callbacks", "models")
NAMES_TENSORFLOW = ("nn.backend", "utils.tf_", "train.", "inference.")
STANDARD = sys.stdlib_module_names


def package_of(module: str) -> str:
    """The first name below `cloudml_tf`."""
    return module.split(".")[1] if "." in module else ""


def in_package(*packages: str) -> list[Path]:
    return [path for name, path in modules().items() if package_of(name) in packages]


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_every_package_has_a_rank() -> None:
    assert {name.removesuffix(".py") for name in names_at_the_root()} == set(RANK)


def test_few_modules_ask_which_target_it_is() -> None:
    assert len(branches_on_the_target()) <= 3


def test_imports_go_down() -> None:
    """Only the doors `python -m cloudml_tf` and `python -m cloudml_tf.train` look up, to the commands."""
    for module, targets in imports().items():
        if module.endswith("__main__") or module == PACKAGE:
            continue
        for target in targets:
            here, there = package_of(module), package_of(target)
            assert here == there or RANK[there] < RANK[here], f"{module} imports {target}"


def test_no_module_imports_itself_through_others() -> None:
    assert circles(imports()) == []


def test_the_root_can_be_read_at_a_glance() -> None:
    assert len(names_at_the_root()) <= 16


@pytest.mark.parametrize("path", in_package(*HEART), ids=lambda path: path.name)
def test_the_heart_knows_keras_and_numpy_only(path: Path) -> None:
    allowed = {"keras", "numpy", PACKAGE, *STANDARD}
    assert roots(path) - allowed <= ({"tensorflow", "jax", "torch"} if path.name == "backend.py" else set())


@pytest.mark.parametrize("path", in_package("utils", "config", "data", "evaluation"), ids=lambda path: path.name)
def test_readers_splits_and_scores_know_no_keras(path: Path) -> None:
    heavy = {"tensorflow", "keras", "wandb", "matplotlib", "xarray"}
    if package_of(PACKAGE + "." + path.parent.name) != "evaluation":
        heavy |= {"sklearn"}
    allowed = {"tensorflow", "keras"} if path.name.startswith("tf_") else set()
    assert not roots(path) & heavy - allowed


def test_only_a_few_modules_name_tensorflow() -> None:
    for name, path in modules().items():
        if "tensorflow" in roots(path):
            assert name.removeprefix(f"{PACKAGE}.").startswith(NAMES_TENSORFLOW), name


HEAVY = ("keras", "tensorflow", "wandb", "sklearn", "matplotlib", "xarray")
LOADED = "import sys; {}; " + f"print([m for m in {HEAVY} if m in sys.modules])"


@pytest.mark.parametrize(
    "code",
    [
        "import cloudml_tf; dir(cloudml_tf)",
        "import cloudml_tf.data.readers.flights, cloudml_tf.data.splits, cloudml_tf.data.prepare",
        "from cloudml_tf.commands.main import VERBS, build_parser; [build_parser(v).format_help() for v in VERBS]",
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


def test_the_counter_of_lines_leaves_out_prose(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text('"""Doc\nstring."""\n\n# comment\nx = 1\n\n\ndef f():\n    """One."""\n    return """a\nb"""\n')
    assert code_lines(path) == 4
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_paths_that_contributing_names_exist():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text()
    plan = text[text.index("## The plan of the code") : text.index("## By hand, and why")]
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", plan)) | set(re.findall(r"`(\w+\.py)`", plan))
    wanted = {path for path in named if "<" not in path}
    assert len(wanted) > 40
    assert not [path for path in wanted if not ((ROOT / path).exists() or (ROOT.parent / path).exists())]


@pytest.mark.parametrize(("field", "names"), [("architecture", models.Architecture), ("head", models.Head)])
def test_a_network_takes_what_its_configuration_offers(field, names):
    offered = get_args(Model.model_fields[field].annotation)
    heights = tuple(name for name in offered if name.startswith("cost_volume"))  # nn.height_network
    assert offered == get_args(names) + heights


@pytest.mark.parametrize(("field", "names"), [("base", losses.BASES), ("form", losses.FORMS)])
def test_a_loss_takes_what_its_configuration_offers(field, names):
    offered = get_args(Loss.model_fields[field].annotation)
    assert offered[: len(names)] == names  # `base` has those of the heads with a distribution too


def test_every_target_has_its_facts_and_its_dataset():
    assert tuple(QUANTITIES) == get_args(TargetName)
    assert all(quantity.lidar in Lidar.model_fields for quantity in QUANTITIES.values())
