"""docs/reference is what the code says."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import cloudml_tf
from cloudml_tf.config.schema import Config
from cloudml_tf.experiments.grid import cells as ablation
from cloudml_tf.experiments.search.settings import Bayesian, Grid, Hyperband, Random, Search

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["config.md", "simulation.md", "python.md", "commands.md"])
def test_the_committed_page_is_what_the_code_says(maker: ModuleType, name: str) -> None:
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert committed == maker.pages()[name], "run `python docs/make_reference.py`"


def test_types_and_limits_are_told_in_plain_words(maker: ModuleType) -> None:
    page = maker.config_page()
    assert "| `max_epochs` | whole number | `50` | ≥ 1, ≤ 100 000 | Largest number of passes" in page
    assert '| `transform` | `"none"` or `"log"` | `"none"` |  | Train on the value or on its natural log' in page
    assert "| `experiment_name` | text | **required** |" in page
    assert "whole number (≥ 2) or number (> 0, < 1) or null" in page


def test_what_is_set_first_stands_first_with_its_meaning(maker: ModuleType) -> None:
    page = maker.config_page()
    first = page[: page.index("## Config\n")]
    assert len(maker.FIRST) == len(set(maker.FIRST)) == 20
    for path in maker.FIRST:
        assert re.search(rf"^\| `{re.escape(path)}` \| .+ \| .{{10,}} \|$", first, re.MULTILINE), path


def test_the_simulator_and_what_reproduces_mistakes_stand_apart(maker: ModuleType) -> None:
    page = maker.config_page()
    assert "flight_count" not in page
    assert "| `flight_count` |" in maker.simulation_page()
    settings, reproduction = page.split("## For reproduction")
    assert re.findall(r"^\| `([\w.]+)`", reproduction, re.MULTILINE) == [
        "preprocessing.per_frame",
        "model.output_init",
        "training.early_stopping_monitor",
        "training.order",
        "pretraining.frames",
    ]
    for name in ("per_frame", "output_init", "early_stopping_monitor", "order", "frames"):
        assert f"\n| `{name}` |" not in settings


def test_no_description_begins_with_a_dangling_preposition(maker: ModuleType) -> None:
    """ "Of the quantile head." says no more than where the field stands; "With log: ..." says when it counts."""
    roots, seen = (Config, Search, Random, Bayesian, Hyperband, Grid, ablation.Grid), {}
    for root in roots:
        maker.sections(root, "", seen)
    described = [
        (model, name, f.description) for model in seen for name, f in model.model_fields.items() if f.description
    ]
    assert len(described) > 200
    for model, name, text in described:
        found = re.match(r"(Of|At|By|From|In|On|To|Under|Per)\b|(With|For)\b[^:]*$", text)
        assert not found, f"{model.__name__}.{name}: {text}"


def test_no_docstring_begins_with_of() -> None:
    root = Path(cloudml_tf.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                said = ast.get_docstring(node) or ""
                assert not said.startswith("Of "), f"{path.relative_to(root)}: {getattr(node, 'name', '')}: {said}"
