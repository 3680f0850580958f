"""The README cannot rot: its Python runs, its files exist, and its commands are commands."""

import re
from pathlib import Path

import pytest

from cloudml_tf.cli import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", SNIPPETS)
def test_python_in_the_readme_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_room_of_the_package_is_in_the_table() -> None:
    rooms = {p.name for p in (ROOT / "cloudml_tf").glob("*.py")} - {"__init__.py", "__main__.py"}
    small = {"cli.py", "errors.py", "quiet.py", "replicas.py"}
    assert rooms - small == set(re.findall(r"`(\w+\.py)`", README))


def test_every_verb_is_explained() -> None:
    for verb in VERBS:
        assert f"| `{verb}" in README
