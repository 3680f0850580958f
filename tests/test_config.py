"""Configurations: what is accepted, what is refused and in which words, and that the shipped files are current."""

import json
from pathlib import Path

import pytest

from cloudml_tf.config.data import LeaveOneOut, Overweight, TimeBlocks
from cloudml_tf.config.load import (
    SCHEMA_PATH,
    expand,
    is_schema,
    load_config,
    parse_config,
    parse_overrides,
    resolved_json,
)
from cloudml_tf.config.run_folder import check_same, read_run
from cloudml_tf.config.schema import Config
from cloudml_tf.utils.errors import ConfigError, RunError

ROOT = Path(__file__).parent.parent
SEARCHES, GRIDS = ("search.json", "search_heights.json"), ("reproduce.json", "ablation.json", "ablation_heights.json")
OTHERS = (SCHEMA_PATH.name, *SEARCHES, *GRIDS)
SHIPPED = sorted(p for p in (ROOT / "configs").glob("*.json") if p.name not in OTHERS)


OLD = {"overweight_factor": 2.5, "overweight": {"threshold": None}}


def test_an_old_name_of_a_field_is_taken_for_its_new_one_and_named_once(tiny_content, tmp_path, capsys) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**tiny_content(), **OLD}))
    for _ in range(2):
        config = load_config(path)
        assert (config.overweight.factor, config.overweight.threshold) == (2.5, None)
    assert "overweight_factor" not in resolved_json(config)
    assert load_config(path, parse_overrides(["overweight_factor=4"])).overweight.factor == 4.0
    assert load_config(path, {"overweight.factor": 3}).overweight.factor == 3.0
    said = "warning: overweight_factor is now overweight.factor; the old name will not be accepted by the next release"
    assert capsys.readouterr().err.strip() == said


def test_both_names_of_a_field_are_refused(tiny_content) -> None:
    both = {"overweight_factor": 2.5, "overweight": {"factor": 2.5}}
    with pytest.raises(ConfigError, match=r"both are given; keep overweight\.factor"):
        parse_config({**tiny_content(), **both})
    with pytest.raises(ConfigError, match=r"both are set; keep overweight\.factor"):
        parse_overrides(["overweight_factor=2", "overweight.factor=3"])


def test_an_old_run_folder_is_read_and_resumed_under_the_new_names(finished: Path, tmp_path: Path, capsys) -> None:
    """Of an older version: one field has its old name, and one was not there."""
    config, description = read_run(finished)
    old = config.model_dump(mode="json")
    old["overweight_factor"] = old["overweight"].pop("factor")
    del old["training"]["data_threads"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "data.json").write_text(json.dumps(description))
    assert read_run(tmp_path)[0] == config
    check_same(tmp_path, config, description["fingerprint"])
    other = config.model_copy(update={"overweight": Overweight(factor=2.0)})
    with pytest.raises(RunError, match=r"overweight\.factor was 1\.0, is 2\.0"):
        check_same(tmp_path, other, description["fingerprint"])
    assert "old name" not in capsys.readouterr().err  # nobody can change what a run folder says


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_shipped_configurations_load(path: Path) -> None:
    config = load_config(path)
    assert parse_config(json.loads(resolved_json(config))) == config
    assert config.warnings() == []


def test_the_schema_in_the_repository_is_current() -> None:
    assert is_schema(ROOT / SCHEMA_PATH), "run: cloudml config schema -o configs/schema.json"


def test_tier1_is_the_originals_phase_3() -> None:
    config = load_config(ROOT / "configs/tier1.json")
    assert config.experiment_name == "tier1_variance_fix_test"
    assert (config.temporal_frames, config.overweight.factor, config.pretraining.enabled) == (3, 1.0, False)
    assert (config.training.max_epochs, config.training.early_stopping_patience) == (50, 10)
    assert (config.loss.form, config.loss.weight, config.training.early_stopping_monitor) == ("variance", 0.5, "val_r2")
    assert (config.model.output_init, config.model.output_bias) == ("default", 0.0)
    assert config.data.path is None


def test_a_threshold_of_optical_depth_is_doubted_for_heights() -> None:
    path, few = ROOT / "configs/tier1_base.json", {"overweight.factor": 1.5}
    assert any("most clouds are higher" in text for text in load_config(path, few).warnings())
    assert not load_config(path, {**few, "overweight.threshold": 3.0}).warnings()
    assert not load_config(ROOT / "configs/tier1.json", few).warnings()


def test_more_than_seven_frames_are_doubted_unless_their_motion_is_what_is_seen() -> None:
    for name, doubted in (("tier1", True), ("les3d", False)):
        config = load_config(ROOT / f"configs/{name}.json", {"temporal_frames": 9})
        assert any("smooth the signal away" in text for text in config.warnings()) == doubted


def test_tier1_base_keeps_the_recipe_and_asks_for_heights() -> None:
    names = ("tier1", "tier1_base", "tier1_base_thermal")
    first, solar, thermal = (load_config(ROOT / f"configs/{name}.json").model_dump() for name in names)
    asked = {"experiment_name", "frame_spacing_s", "target", "data", "augmentation", "model", "loss", "training"}
    assert {key for key in first if first[key] != solar[key]} == asked
    assert {key for key in first["loss"] if first["loss"][key] != solar["loss"][key]} == {"base"}
    assert solar["training"]["early_stopping_monitor"] == first["training"]["early_stopping_monitor"] == "val_r2"
    changed = {"experiment_name", "target", "data", "augmentation"}
    assert {key for key in solar if solar[key] != thermal[key]} == changed
    for base, preset in ((solar, "heights"), (thermal, "heights_thermal")):
        assert base["target"]["name"] == "cloud_base_km"
        assert base["model"]["architecture"] == "cost_volume"
        assert base["data"]["simulation"]["preset"] == preset
        assert base["data"]["geometry"]["network_input"]  # of a height it is read by default
    assert not thermal["data"]["sun_angles"]  # a thermal camera needs no sun


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"training": {"max_epoch": 5}}, "unknown key 'training.max_epoch'; did you mean 'training.max_epochs'"),
        ({"trainin": {}}, "unknown key 'trainin'; did you mean 'training'"),
        ({"epochs": 5}, "unknown key 'epochs'; did you mean 'training.max_epochs'"),
        ({"data": {"saturatoin": 1}}, "unknown key 'data.saturatoin'; did you mean 'data.camera.saturation'"),
        ({"data": {"camera": {"chanels": ["a"]}}}, "'data.camera.chanels'; did you mean 'data.camera.channels'"),
        ({"data": {"simulation": {"presett": "hard"}}}, "did you mean 'data.simulation.preset'"),
        ({"split": {"kind": "flights", "train": ["a"], "val": ["b"], "tset": ["c"]}}, "did you mean 'split.test'"),
        ({"split": {"kind": "random"}}, "'split.kind': must be 'flights', 'leave_one_out' or 'time_blocks'"),
        ({"split": {"kind": "time_blocks", "train": []}}, "unknown key 'split.train'; it belongs to kind 'flights'"),
        ({"loss": {"lambda": 1}}, "unknown key 'loss.lambda'; did you mean 'loss.weight'"),
        ({"training": {"lr": 1}}, "did you mean 'training.learning_rate'"),
        ({"training": {"epochs": 1}}, "did you mean 'training.max_epochs'"),
        ({"pretraining": {"epochs": 1}}, "did you mean 'pretraining.max_epochs'"),
        ({"data": {"channels": ["a"]}}, "did you mean 'data.camera.channels'"),
        ({"training": {"dropout": 0.1}}, "did you mean 'model.dropout'"),
        ({"target": {"maximum": "None"}}, "must be a valid number, or null for no limit. Received"),
        ({"model": {"heads": "four"}}, "'model.heads'"),
        ({"model": {"dropout": 1.5}}, "'model.dropout'.*less than 1.*Received: 1.5"),
        ({"temporal_frames": 4}, "'temporal_frames'"),
        ({"experiment_name": "../evil"}, "'experiment_name'"),
        ({"target": {"minimum": 2, "maximum": 1}}, "'target': minimum 2.0 must be below maximum 1.0"),
        ({"target": {"transform": "log", "minimum": 0}}, "a log target needs minimum above 0"),
        ({"target": {"smearing": True}}, "smearing belongs to the log transform"),
        ({"data": {"path": "x", "flights": {}}}, "path and flights both name the input"),
        ({"data": {"lidar": {"clear_sky": "zero"}}}, "below target.minimum"),
        ({"target": {"name": "cloud_base_km"}, "data": {"lidar": {"layer": "column"}}}, "does not add up"),
        ({"loss": {"target_variance": "batch"}, "training": {"batch_size": 1}}, "batch_size of 2 or more"),
        ({"split": {"kind": "flights", "train": ["a"], "val": ["a"], "test": ["c"]}}, "named twice: a"),
        ({"split": {"kind": "time_blocks", "val_fraction": 0.6, "test_fraction": 0.5}}, "leave room for training"),
        ({"split": {"kind": "leave_one_out", "test": "a", "val": "a"}}, "different flights"),
        ({"split": {"kind": "leave_one_out", "test": 7, "exclude": ["7"]}}, "different flights"),
        ({"split": {"kind": "leave_one_out", "test": 1.5}}, "'split.test': needs a flight's name as text"),
        ({"split": {"kind": "leave_one_out", "test": True}}, "'split.test': needs a flight's name as text"),
        ({"pretraining": {"extra_flights": 7}}, r"needs a list, such as '\[\"7\"\]'. Received: 7"),
        ({"overweight": {"flights": "a"}}, r"needs a list, such as '\[\"a\"\]'. Received: \"a\""),
        ({"model": {"widths": 24}}, r"'model.widths': must be a list, \[...\]. Received: 24"),
        ({"model": {"output_init": -1}}, "'default' or a standard deviation above 0"),
        ({"pretraining": {"mask_ratio": 1.0}}, "'pretraining.mask_ratio'"),
        ({"pretraining": {"enabled": True}, "training": {"init_from": "x"}}, "both set the initial weights"),
        ({"training": {"warmup_steps": 9, "warmup_epochs": 2}}, "warmup_steps and warmup_epochs both say how long"),
    ],
)
def test_what_is_refused_and_how(tiny_content, changes: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_config(tiny_content(**changes))


def test_flights_may_be_named_by_numbers(tiny) -> None:
    config = tiny(
        split={"kind": "flights", "train": [20240601, "b"], "val": [20240602], "test": [20240603]},
        overweight={"flights": [20240601]},
        pretraining={"extra_flights": [20240604]},
    )
    assert (config.split.train, config.split.test) == (("20240601", "b"), ("20240603",))
    assert (config.overweight.flights, config.pretraining.extra_flights) == (("20240601",), ("20240604",))
    left_out = tiny(split={"kind": "leave_one_out", "test": 20240601, "exclude": [20240602]}).split
    assert (left_out.test, left_out.val, left_out.exclude) == ("20240601", None, ("20240602",))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="'split' is required and missing"):
        parse_config({"experiment_name": "x"})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": {"output_init": 0.01}}, "model.output_init 0.01"),
        ({"temporal_frames": 9}, "temporal_frames 9"),
        ({"loss": {"weight": 0}}, "loss.weight 0"),
        ({"training": {"early_stopping_monitor": "val_loss"}}, "early_stopping_monitor val_loss"),
        ({"frame_spacing_s": 2.0, "temporal_frames": 1}, "a single frame (temporal_frames 1) has no spacing"),
    ],
)
def test_what_the_original_warns_of_is_allowed_and_warned_about_by_name(tiny, changes: dict, text: str) -> None:
    assert text in tiny(**changes).warnings()[0]
    assert tiny(model={"output_init": 0.5}).warnings() == []


def test_configurations_are_frozen(tiny) -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny().seed = 2


def test_overrides(tmp_path: Path) -> None:
    found = parse_overrides(["training.max_epochs=5", "target.name=cloud_base_km", "data.camera.rows=[1, 2]", "x=a=b"])
    assert found == {"training.max_epochs": 5, "target.name": "cloud_base_km", "data.camera.rows": [1, 2], "x": "a=b"}
    config = load_config(ROOT / "configs/tier1.json", {"training.max_epochs": 5, "model.widths": [3]})
    assert (config.training.max_epochs, config.model.widths) == (5, (3,))
    with pytest.raises(ConfigError, match="--set needs key=value"):
        parse_overrides(["training.max_epochs"])
    with pytest.raises(ConfigError, match="'seed' is a value, not a section"):
        load_config(ROOT / "configs/tier1.json", {"seed.x": 5})


def test_a_list_of_refused_items_is_not_called_empty(tiny_content) -> None:
    with pytest.raises(ConfigError, match=r"'output.export_formats.0': must be .* Received: \"onx\"") as caught:
        parse_config(tiny_content(output={"export_formats": ["onx"]}))
    assert "at least 1" not in str(caught.value)


def test_another_kind_replaces_the_section(capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"split.gap_s": 5.0, "split.kind": "time_blocks"}
    assert load_config(ROOT / "configs/tier1.json", changes).split == TimeBlocks(gap_s=5.0)
    said = "--set split.kind=time_blocks replaces the section: train, val, test are left out"
    assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"^--set split.kind: 'split.test' is required and missing$"):
        load_config(ROOT / "configs/tier1.json", {"split.kind": "leave_one_out"})


def test_a_mistake_is_blamed_on_what_made_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"lambda": 1, **json.loads((ROOT / "configs/tier1.json").read_text())}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"loss.weight": "much"})
    own = f"{path}: unknown key 'lambda'; did you mean 'loss.weight'?"
    option = '--set loss.weight: must be a valid number. Received: "much"'
    assert {line.strip() for line in str(caught.value).splitlines()} == {own, option}


def test_paths_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDML_TEST", raising=False)
    assert expand("${CLOUDML_TEST:-../other}/data") == Path("../other/data")
    with pytest.raises(ConfigError, match="needs the environment variable CLOUDML_TEST"):
        expand("${CLOUDML_TEST}/data")
    monkeypatch.setenv("CLOUDML_TEST", "/somewhere")
    assert expand("${CLOUDML_TEST:-../other}/data") == Path("/somewhere/data")
    assert expand("~/x") == Path.home() / "x"


def test_every_field_is_described_or_obvious() -> None:
    """The schema is what an editor shows: each field has a description, or its section says what it is."""
    schema = Config.model_json_schema()
    fields = [
        (name, key)
        for name, part in schema["$defs"].items()
        for key, field in part.get("properties", {}).items()
        if "description" not in field and "$ref" not in field and key not in ("kind",)
    ]
    sections = {name for name, _ in fields if not schema["$defs"][name].get("description")}
    assert sections == set()
    assert LeaveOneOut.__doc__
