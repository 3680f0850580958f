"""The third-party scenes: the published figures of the retrieval, the side of the sun, and a fold in minutes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from test_les import SHARED

from cloudml_tf.config.load import load_config

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    not (SHARED / "data/les/scenes_200m.h5").is_file(), reason="needs the LES scenes: set CLOUDML_SHARED"
)


@pytest.fixture
def les_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDML_SHARED", str(SHARED))
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    import les_table

    return les_table


def test_the_metric_gives_the_published_figures_of_the_retrieval(les_table) -> None:
    found = les_table.check_ipa(les_table.all_scenes())
    assert found == pytest.approx(les_table.PUBLISHED_IPA, abs=6e-4)


def test_folds_share_no_scene_and_use_all(les_table) -> None:
    tested = []
    for fold in range(1, 5):
        names = les_table.fold_names(fold)
        assert [len(names[part]) for part in ("train", "val", "test")] == [42, 20, 20]
        assert len({name for part in names.values() for name in part}) == 82
        tested += names["test"]
    assert len(set(tested)) == 80


def test_the_sun_stands_on_the_side_of_the_low_columns(les_table) -> None:
    """Clear pixels are darkest some pixels to the right of a thick cloud, and no darker above or below one."""
    scenes = les_table.all_scenes()
    assert load_config(les_table.CONFIG).data.scenes.sun_axis == "columns"
    clear, thick = scenes.label < 0.05, scenes.label > 5.0
    red = np.log(scenes.frames[..., 0])

    def beside(rows: int, columns: int) -> float:
        return float(red[clear & np.roll(thick, (rows, columns), axis=(1, 2))].mean())

    right, left, above, below = beside(0, 5), beside(0, -5), beside(-5, 0), beside(5, 0)
    assert right < min(left, above, below) - 0.3
    assert abs(above - below) < 0.1


@pytest.mark.slow
def test_a_fold_is_under_the_published_network(les_table, tmp_path: Path) -> None:
    row = les_table.row_of(1, 1, [1], tmp_path, les_table.all_scenes(), {})
    assert row["ensemble"] < 0.474
    assert 0.96 < row["scores"]["variance_ratio"] < 1.03
