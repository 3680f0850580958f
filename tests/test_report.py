"""The page of a run: what is on it, that its numbers are those of metrics.json, and that it needs nothing else."""

import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cloudml_tf.data.samples import Samples
from cloudml_tf.data.scaling import TargetScaling
from cloudml_tf.evaluation.collect import table_rows
from cloudml_tf.evaluation.scores import scores, scores_with_intervals, tier
from cloudml_tf.reports import html, images, plots, report
from cloudml_tf.reports import tables as tables_module
from cloudml_tf.reports.figure import Picture, side_by_side


class Reader(HTMLParser):
    """Headings, tables, badges, references and picture labels of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.path: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.badges: list[str] = []
        self.references: list[str] = []
        self.pictures: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        if tag not in ("meta", "link"):
            self.path.append("badge" if found.get("class", "").startswith("badge") else tag)
        self.references += [found[name] for name in ("src", "href", "xlink:href", "action") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "svg" and "aria-label" in found:
            self.pictures.append(found["aria-label"].split(":")[0])

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.path.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.path.pop() in (tag, "badge"), f"</{tag}> closes another element"

    def handle_data(self, text: str) -> None:
        if not self.path:
            return
        if self.path[-1] in ("h1", "h2"):
            self.headings.append(text)
        if self.path[-1] == "badge":
            self.badges.append(text)
        if self.path[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += text


@pytest.fixture(scope="module")
def text(finished: Path) -> str:
    return (finished / "report.html").read_text()


@pytest.fixture(scope="module")
def metrics(finished: Path) -> dict:
    return json.loads((finished / "metrics.json").read_text())


def test_the_page_is_in_the_order_in_which_people_ask(text: str, metrics: dict) -> None:
    found = Reader(text)
    assert found.headings[0].startswith("tiny ")
    assert found.headings[1:] == [
        "Scores", "Training", "Distributions", "Predictions and lidar", "Flights", "Along a flight", "Worst cases",
        "Best cases", "Details",
    ]  # fmt: skip
    name = metrics["tier"]["name"]
    assert found.badges[0] == ("no tier" if name == "none" else f"tier: {name}")
    assert text.index("badge") < text.index("<table>") < text.index("<svg")
    assert found.pictures[:4] == ["curves_loss", "curves_r2", "curves_spread", "curves_bias"]
    assert {
        "distribution_epoch_1", "distribution_best_epoch", "scatter", "residuals", "residual_histogram", "taylor",
        "flights_r2", "flights_s", "flights_rmse", "time_series_1", "worst_1", "worst_3", "best_1", "best_3",
    } <= set(found.pictures)  # fmt: skip


def test_every_picture_is_also_a_file(text: str, finished: Path) -> None:
    assert {f"{name}.png" for name in Reader(text).pictures} == {p.name for p in (finished / "plots").iterdir()}


def test_the_tables_show_the_figures_of_metrics_json(text: str, metrics: dict) -> None:
    tables = Reader(text).tables
    for part, shown in zip(("test", "val", "train"), tables, strict=True):
        rows = dict(table_rows(metrics, part))
        assert shown[0] == tables_module.HEAD
        assert [row[0] for row in shown[1:]] == list(rows)
        for name, *cells in shown[1:]:
            found = rows[name]
            values = [re.findall(r"[+-]?\d+\.?\d*", cell) for cell in cells]
            assert [float(v) for v in values[0]] == pytest.approx([found["r2"], *found["ci95"]["r2"]], abs=5e-4)
            keys = ("correlation", "bias", "rmse", "mae", "r2_ceiling")
            for key, value in zip(keys, values[2:7], strict=True):
                assert value == [] if found[key] is None else float(value[0]) == pytest.approx(found[key], abs=5e-4)
            assert float(values[1][0]) == pytest.approx(100 * found["variance_ratio"], abs=0.05)
            assert values[8] == [str(found["n"]), f"{found['n_eff']:.0f}"]


def test_the_big_numbers_are_those_of_the_network(text: str, metrics: dict) -> None:
    big = re.findall(r"<b>([^<]*)</b>", text)
    test = metrics["test"]
    expected = [test["r2"], 100 * test["variance_ratio"], test["correlation"], test["rmse"]]
    assert [float(value.removesuffix(" %")) for value in big] == pytest.approx(expected, abs=0.05)


def test_the_page_holds_metrics_json(text: str, metrics: dict) -> None:
    held = json.loads(re.findall(r'<script type="application/json" id="metrics">(.*?)</script>', text)[0])
    assert held == {key: value for key, value in metrics.items() if key != "export"}  # the export comes after it


def test_the_page_needs_no_network_and_is_small(text: str, finished: Path) -> None:
    references = Reader(text).references
    assert references
    assert all(one.startswith(("data:", "#")) for one in references)
    assert "url(http" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert (finished / "report.html").stat().st_size < 2e6


def test_identifiers_are_unique_and_colours_follow_the_theme(text: str) -> None:
    drawn = text[text.index("<svg") :]
    for light, _ in html.COLOURS.values():
        assert light not in drawn
    assert "var(--ink)" in drawn
    own = [name for name in Reader(text).ids if name != "metrics"]
    repeated = {name for name in own if own.count(name) > 1}
    assert not repeated


def test_text_is_escaped() -> None:
    shown = html.page(
        "<b>",
        html.table(["<i>"], [["</td>"]]),
        html.badge("a & b"),
        html.element("p", 'says "no"', title='"'),
        data={"metrics": {"x": "</script><script>alert(1)</script>", "y": float("nan")}},
    )
    for raw in ("<b>", "<i>", "<td></td>", "alert(1)</script>"):
        assert raw not in shown
    assert "&lt;b&gt;" in shown
    assert 'title="&#34;"' in shown
    assert '"y": null' in shown


def test_a_diagnosis_stands_on_top(metrics: dict, tmp_path: Path) -> None:
    finding = {
        "name": "small start",
        "evidence": ["s is 3 %"],
        "remedy": "Start larger.",
        "set": ["model.output_init=1"],
    }
    diagnosis = {"verdict": "variance collapse", "summary": "Shrunk to the mean.", "findings": [finding]}
    report.write_html(tmp_path / "a.html", "a", {**metrics, "diagnosis": diagnosis}, [], {})
    text = (tmp_path / "a.html").read_text()
    assert '<span class="badge bad">variance collapse</span>' in text
    assert text.index("Shrunk to the mean.") < text.index("s is 3 %") < text.index("<b>")
    assert "<code>--set model.output_init=1</code>" in text
    report.write_html(
        tmp_path / "b.html", "b", {**metrics, "diagnosis": {**diagnosis, "verdict": "healthy", "findings": []}}, [], {}
    )
    assert '<span class="badge good">healthy</span>' in (tmp_path / "b.html").read_text()


def test_scores_that_are_not_defined_are_a_dash(metrics: dict) -> None:
    cells = tables_module.score_cells("mean", metrics["baselines"]["mean"]["test"])
    assert cells[3] == cells[8] == "-"


def scene(count: int = 40, step: int = 3) -> tuple[Samples, np.ndarray]:
    """A flight over a random scene that moves `step` columns from label to label, and the whole scene."""
    rng = np.random.default_rng(1)
    ground = rng.gamma(2.0, 1.0, (12, 16 + step * count)).astype("float32")
    samples = Samples(
        table=np.stack([ground[:, i * step : i * step + 16, None] for i in range(count)]),
        sun_angles_deg=None,
        features=np.zeros((count, 0)),
        index=np.repeat(np.arange(count)[:, None], 3, axis=1),
        label=rng.uniform(0.1, 2.0, count),
        weight=np.ones(count),
        time_s=1.7e9 + 30.0 * np.arange(count),
        flight=np.zeros(count, int),
        piece=np.zeros(count, int),
        flight_names=("one",),
        nadir=(6, 8),
    )
    return samples, ground


@pytest.mark.parametrize("step", [2, 3, 7])
def test_the_strip_is_the_scene_that_was_flown_over(step: int) -> None:
    samples, ground = scene(step=step)
    first = 8 - step // 2

    def strip(table: np.ndarray, nadir: tuple[int, int], axis: str) -> np.ndarray:
        pieces = images.camera_strip(replace(samples, table=table, nadir=nadir), np.arange(40), axis)
        assert pieces.shape == (40, 12, step)
        return pieces.transpose(1, 0, 2).reshape(12, -1)

    over = ground[:, first : first + 40 * step]
    np.testing.assert_array_equal(strip(samples.table, (6, 8), "rows"), over)
    np.testing.assert_array_equal(strip(samples.table.swapaxes(1, 2), (8, 6), "columns"), over)
    mirrored = strip(samples.table[:, :, ::-1], (6, 8), "rows")  # flown the other way
    np.testing.assert_array_equal(mirrored, ground[:, 16 - first - step :][:, : 40 * step])


def test_where_the_frames_do_not_meet_the_strip_is_the_line_through_nadir() -> None:
    samples, _ = scene()
    apart = np.random.default_rng(0).normal(size=samples.table.shape)
    strip = images.camera_strip(replace(samples, table=apart), np.arange(40), "rows")
    np.testing.assert_array_equal(strip[..., 0], apart[:, :, 8, 0])
    assert images.camera_strip(samples, np.arange(1), "rows").shape == (1, 12, 1)


def test_a_large_frame_is_thinned_out() -> None:
    samples, _ = scene()
    large = samples.table.repeat(20, axis=1).repeat(20, axis=2)
    strip = images.camera_strip(replace(samples, table=large, nadir=(120, 160)), np.arange(40), "rows")
    assert strip.shape[1] <= images.LARGEST
    assert 1 < strip.shape[2] <= images.FINEST


@pytest.mark.parametrize("high", [0.4, 2.0, 7.3])
def test_both_axes_of_a_scatter_have_the_same_ticks(high: float) -> None:
    target = np.linspace(0.1, high, 50)
    (ax,) = plots.scatter(target, target + 0.1, scores(target, target + 0.1), "optical depth").figure.axes
    assert ax.get_xticks().tolist() == ax.get_yticks().tolist()


def test_axes_name_the_target_in_words(text: str) -> None:
    assert "lidar, optical depth<" in text
    assert "optical_depth<" not in "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))


def test_cases_are_apart_and_in_order() -> None:
    samples, _ = scene()  # a label each half minute
    error = np.linspace(0.0, -1.0, 40)
    assert images.cases(samples, error, worst=True).tolist() == [39, 37, 35]
    assert images.cases(samples, error, worst=False).tolist() == [0, 2, 4]
    assert images.cases(samples.take(np.arange(2)), error[:2], worst=True).tolist() == [1]


def judged(samples: Samples, z: np.ndarray) -> dict:
    """The metrics of an evaluation."""
    n_eff = samples.effective_size(samples.label)
    found = scores_with_intervals(samples.label, z, np.arange(len(z)) // 4, n_eff, samples=50)
    return {
        "space": {"loss": "optical_depth", "physical": "optical_depth"},
        "test": {**found, "physical": found},
        "tier": tier(found),
        "per_flight": {"test": {"one": scores(samples.label, z)}},
    }


@pytest.mark.parametrize(
    "kind",
    ["good", "constant", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("two labels", "many labels"))],
)
@pytest.mark.no_cover
def test_any_evaluation_gives_a_page(kind: str, tmp_path: Path) -> None:
    count = {"two labels": 2, "many labels": 6000}.get(kind, 40)
    samples, _ = scene(count=count, step=1)
    noise = np.random.default_rng(2).normal(0.0, 0.1, count)
    z = np.full(count, 0.7) if kind == "constant" else samples.label + noise
    with warnings.catch_warnings(action="ignore"):  # of a bootstrap over one block
        metrics = judged(samples, z)
    evidence = report.Evidence({"test": samples}, {"test": z}, TargetScaling(0.0, 1.0, log=False))
    chapters = report.draw(tmp_path, metrics, evidence)
    report.write_html(tmp_path / "report.html", kind, metrics, chapters, {})
    text = (tmp_path / "report.html").read_text()
    assert len(Reader(text).pictures) == len(list((tmp_path / "plots").iterdir()))
    assert "attention" not in text
    assert len(text) < 2e6
    assert ">nan" not in text


def test_a_page_of_several_runs(finished: Path, metrics: dict) -> None:
    from cloudml_tf.config.run_folder import read_history

    history = read_history(finished)
    names = ["first", "second & third"]
    flights = ["sim01", "sim02"]
    pictures = [
        *plots.curves_of_runs(dict.fromkeys(names, history)),
        plots.taylor([*table_rows(metrics), *[(name, metrics["test"]) for name in names]], "taylor_runs"),
        plots.bars("pairs", "R²", flights, {name: [0.5, None] for name in names}),
    ]
    drawn = side_by_side(pictures)
    found = Reader(html.page("two runs", html.section("Curves", drawn)))
    assert found.pictures == ["runs_val_r2", "runs_val_variance_ratio", "runs_val_correlation", "taylor_runs", "pairs"]
    assert drawn.count("second &amp; third") >= 5
    assert "no positive correlation: mean" in drawn


def spread_out(seed: int, count: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def every_kind_of_picture() -> list[Picture]:
    target, prediction = spread_out(1), 0.2 * spread_out(2)
    found = scores(target, prediction)
    history = [{"epoch": n, **dict.fromkeys(KEYS, 1.0 / n)} for n in range(1, 9)]
    runs = {"a run with a name that is quite long": found, "ridge": found, "gradient_boosting": found, "b": found}
    return [
        *plots.curves(history, 3),
        *plots.curves_of_runs(dict.fromkeys(runs, history)),
        plots.scatter(target, prediction, found, "optical depth"),
        *plots.residuals(target, prediction, found, "optical depth"),
        *plots.distributions(target, {1: np.zeros(400)}, prediction, "optical depth"),
        plots.bars("pairs", "R²", ["sim01", "sim02"], {name: [0.1, 0.9] for name in runs}),
        plots.taylor([(name, {**one, "correlation": 0.5}) for name, one in runs.items()]),
    ]


KEYS = ("loss", "val_loss", "val_r2", "val_correlation", "val_variance_ratio", "val_bias")


def test_no_legend_lies_on_a_curve_or_leaves_the_picture() -> None:
    legends = 0
    for picture in every_kind_of_picture():
        made = picture.figure
        made.draw_without_rendering()
        for legend in [*made.legends, *(ax.legend_ for ax in made.axes if ax.legend_ is not None)]:
            legends += 1
            box = legend.get_window_extent()
            assert not any(box.overlaps(ax.get_window_extent()) for ax in made.axes), picture.name
            assert box.x0 >= -1, picture.name
            assert box.x1 <= made.bbox.x1 + 1, picture.name
    assert legends > 8


def test_a_collapsed_distribution_is_shown_to_its_top() -> None:
    for picture in plots.distributions(spread_out(1), {1: np.zeros(400)}, spread_out(2), "optical depth"):
        picture.figure.draw_without_rendering()
        (ax,) = picture.figure.axes
        tops = [patch.get_extents().y1 for patch in ax.patches]
        assert max(tops) <= ax.get_window_extent().y1


# --- the verdict in words


def found_of(r2: float, std: float = 0.483, **more: float) -> dict:
    one = {"variance_ratio": 0.9, "correlation": 0.9, "bias": 0.0, "rmse": 0.2, "mae": 0.1, "pred_spread": 1.5}
    interval = {"r2": [r2 - 0.03, r2 + 0.03]}
    return {**one, "r2": r2, "r2_ceiling": 0.81, "target_std": std, "ci95": interval, "n": 100, "n_eff": 50, **more}


def with_baselines(network: float, boosted: float, **more: float) -> dict:
    of = {"ridge": found_of(0.742), "gradient_boosting": found_of(boosted)}
    baselines = {name: {"test": found} for name, found in of.items()}
    tier_of = {"name": "good", "next": None, "failed": []}
    space = {"loss": "optical_depth", "physical": "optical_depth"}
    return {"space": space, "test": found_of(network, **more), "baselines": baselines, "tier": tier_of}


@pytest.mark.parametrize(("network", "words"), [(0.731, "do not overlap"), (0.78, "overlap")])
def test_a_network_below_a_baseline_is_said_first(network: float, words: str) -> None:
    lines = tables_module.verdict(with_baselines(network, 0.805))
    expected = f"network below the best baseline: gradient_boosting 0.805, network {network:.3f}"
    assert lines[:2] == [f"{expected} (R²; 95 % intervals {words})", "tier: good"]
    assert tables_module.reasons(with_baselines(network, 0.805))[0].startswith("Network below the best baseline")


def test_a_network_above_its_baselines_has_no_such_line() -> None:
    assert tables_module.verdict(with_baselines(0.85, 0.805))[0] == "tier: good"
    assert tables_module.below_baseline(with_baselines(0.8050001, 0.8050002)) == []  # they look alike
    assert tables_module.below_baseline({"test": found_of(0.5)}) == []


def test_absolute_limits_are_for_labels_that_are_spread_alike() -> None:
    near, far = (tables_module.absolute_limits(with_baselines(0.9, 0.8, std=std)) for std in (0.483 * 1.4, 0.483 / 1.6))
    assert "made for std 0.483" in near[0]
    assert far == []


def test_few_epochs_are_not_judged() -> None:
    metrics = with_baselines(0.9, 0.8) | {"phase3": {"passed": None, "failed": []}, "training": {"epochs": 2}}
    assert "acceptance: not judged (2 epochs)" in tables_module.verdict(metrics)


@pytest.mark.parametrize(("s", "tag"), [(0.85, "85.0 % s above r"), (1.3, "130.0 % inflated"), (0.65, "65.0 %")])
def test_an_s_above_r_is_named_by_what_it_is(s: float, tag: str) -> None:
    assert tables_module.score_cells("network", found_of(0.3, variance_ratio=s, correlation=0.6))[2] == tag
