"""docs/reference is what the code says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["config.md", "python.md", "commands.md"])
def test_the_committed_page_is_what_the_code_says(maker: ModuleType, name: str) -> None:
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert committed == maker.pages()[name], "run `python docs/make_reference.py`"


def test_types_and_limits_are_told_in_plain_words(maker: ModuleType) -> None:
    page = maker.config_page()
    assert "| `max_epochs` | whole number | `50` | ≥ 1, ≤ 100 000 |  |" in page
    assert '| `transform` | `"none"` or `"log"` | `"none"` |  | Train on the value or on its natural log' in page
    assert "| `experiment_name` | text | **required** |" in page
    assert "whole number (≥ 2) or number (> 0, < 1) or null" in page
