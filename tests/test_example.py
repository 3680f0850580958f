"""The tiny model that git keeps: it is tiny, whole, loads in every format, and answers as its record says."""

import json
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.config.load import load_config, parse_config
from cloudml_tf.data.scaling import Scaling
from cloudml_tf.data.training_ranges import TrainingRanges
from cloudml_tf.inference.export import parity
from cloudml_tf.inference.export.formats import FORMATS, open_export

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "savedmodels" / "example"


def test_it_is_tiny_and_made_by_the_shipped_configuration() -> None:
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*")) < 500_000
    record = json.loads((EXAMPLE / "cloudml.json").read_text())
    assert parse_config(record["config"]) == load_config(ROOT / "configs/example.json")
    assert TrainingRanges.from_json(record["data"]["ranges"]).label.minimum >= 0.1
    assert list(record["files"]) == list(FORMATS)
    places = json.dumps(record["data"]["files"])
    assert "runs/cache" in places
    assert '"/' not in places  # no folder of the machine that made it


@pytest.fixture(scope="module")
def answers() -> dict[str, np.ndarray]:
    record = json.loads((EXAMPLE / "cloudml.json").read_text())
    shapes = {name: tuple(shape) for name, shape in record["inputs"].items()}
    drawn = parity.drawn_sequences(shapes, Scaling.from_json(record["data"]["scaling"]), None, seed=1, count=30)
    return {name: parity.file_answers(open_export(EXAMPLE, name), drawn)["optical_depth"] for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_answers(answers: dict[str, np.ndarray], name: str) -> None:
    np.testing.assert_allclose(answers[name], answers["savedmodel"], rtol=1e-4, atol=1e-4)
    assert answers[name].std() > 0.01


def test_the_card_is_whole() -> None:
    card = (EXAMPLE / "model_card.md").read_text()
    for form in FORMATS.values():
        assert f"| {form.title} | {form.file} |" in card
    assert "| **this model** |" in card
