"""Who may import what: layers, no circles, readers without TensorFlow, a heart of Keras and NumPy."""

import subprocess
import sys
from pathlib import Path

import pytest
from structure import PACKAGE, circles, code_lines, imported, imports, modules, names_at_the_root

import cloudml_tf

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
