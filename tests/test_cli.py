"""The door: verbs, help, options and exit codes."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloudml_tf.commands.arguments import exit_codes
from cloudml_tf.commands.main import VERBS, main
from cloudml_tf.utils.errors import EXIT_CODES

TOOLS = ("benchmark", "completion")  # know no configuration
UNRANDOM = ("predict", "calibrate", "diagnose", "export")  # draw nothing at random


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_the_common_options_and_exit_codes(verb: str, capsys) -> None:
    arguments = [verb, "print", "--help"] if verb == "config" else [verb, "--help"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    options = ("--set", "--json", "--run-dir", *(["--seed"] if verb not in UNRANDOM else []))
    for option in ("--json",) if verb in TOOLS else options:
        assert option in shown
    assert ("--seed" in shown) == (verb not in (*TOOLS, *UNRANDOM))
    assert verb in TOOLS or "cloudml config explain" in " ".join(shown.split())
    assert f"example: cloudml {verb}" in shown
    assert "exit codes: 0 done" in shown


@pytest.mark.parametrize("door", [["cloudml_tf", "train"], ["cloudml_tf", "check"], ["cloudml_tf.train"]])
def test_the_package_and_its_training_are_modules_that_run(door: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *door, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert f"cloudml {door[-1].removeprefix('cloudml_tf.')}" in done.stdout


def test_the_console_script_and_the_package_are_the_same_door() -> None:
    script = Path(sys.executable).with_name("cloudml")
    for command in ([str(script)], [sys.executable, "-m", "cloudml_tf"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert done.stdout.startswith("cloudml_tf ")


def test_exit_codes_are_all_described() -> None:
    assert set(EXIT_CODES) == {0, 1, 2, 3, 4, 5, 6, 7, 130, 143}
    assert {code for verb in VERBS for code in exit_codes(verb)} == set(EXIT_CODES)


@pytest.mark.parametrize(
    ("verb", "codes"),
    [
        ("train", [0, 1, 2, 3, 4, 5, 6, 130, 143]),
        ("predict", [0, 1, 2, 4, 7, 130, 143]),
        ("check", [0, 1, 2, 130, 143]),
        ("config", [0, 1, 2]),
    ],
)
def test_help_and_reference_show_the_exit_codes_that_can_occur(verb: str, codes: list[int], capsys) -> None:
    with pytest.raises(SystemExit):
        main([verb, *(["print"] if verb == "config" else []), "--help"])
    shown = capsys.readouterr().out.partition("exit codes: ")[2]
    assert [int(line.split()[0]) for line in shown.splitlines()] == codes
    reference = (Path(__file__).parent.parent / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    section = reference.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"\[(\d+)\]\(#exit-codes\)", section)] == codes


@pytest.mark.parametrize("words", [["--res"], ["--set", "seed=-1"], ["--seed", "-1"], ["--", "--epochs"]])
def test_beginnings_and_negative_numbers_are_no_wrong_options(words: list[str], tmp_path: Path, capsys) -> None:
    assert main(["train", str(tmp_path / "none.json"), *words]) == 2
    assert "unknown option" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["trian", "x.json"], "cloudml: unknown command 'trian'; did you mean 'train'? See `cloudml --help`."),
        (["frobnicate"], "unknown command 'frobnicate'; the commands are init, train, "),
        (
            ["train", "x.json", "--epochs", "5"],
            "cloudml train: unknown option --epochs. Settings are given as --set KEY=VALUE, such as "
            "--set training.max_epochs=5. See `cloudml train --help`.",
        ),
        (["train", "--epochs", "5", "x.json"], "cloudml train: unknown option --epochs. Settings are given as"),
        (["train", "--run_dir=r", "x.json"], "unknown option --run_dir. Did you mean --run-dir? See `cloudml train"),
        (["evaluate", "--batch", "5", "run"], "cloudml evaluate: unknown option --batch. Settings are"),
        (["config", "print", "--epochs", "5", "x.json"], "cloudml config: unknown option --epochs. Settings are"),
        (["train", "x.json", "y.json"], "unknown arguments: y.json. See `cloudml train --help`."),
        (
            ["train", "x.json", "--set", "training.max_epochs", "5"],
            "cloudml train: unknown arguments: 5. Did you mean --set training.max_epochs=5? See `cloudml",
        ),
        (
            ["predict", "m", "a", "-o", "out", "b"],
            "unknown arguments: b. Put all flights before -o. See `cloudml predict",
        ),
        (["init", "a", "--run-dir", "b"], "cloudml init: DIR and --run-dir both name the destination; keep one."),
        (["simulate", "a", "--run-dir", "b"], "cloudml simulate: DIR and --run-dir both name the destination"),
        (["export", "r", "-o", "a", "--run-dir", "b"], "cloudml export: -o and --run-dir both name the destination"),
        (["search", "none.json"], "none.json: no such search file. `cloudml search --help` shows a minimal one."),
        (["ablate", "none.json"], "none.json: no such grid file. `cloudml ablate --help` shows a minimal one."),
        (["completion", "bash", "--seed", "1"], "unknown option --seed. See `cloudml completion --help`."),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: list[str], text: str, capsys) -> None:
    assert main([*arguments, "--json"]) == 2
    shown = capsys.readouterr()
    assert text in shown.err
    assert shown.err.count("\n") == 1
    assert json.loads(shown.out)["error"] in shown.err


@pytest.mark.parametrize("arguments", [["train", "--json"], ["train"], ["--json", "train"]])
def test_a_command_line_that_lacks_something_is_told_in_one_line(arguments: list[str], capsys) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "See `cloudml" in shown.err
    assert shown.err.count("\n") == 1
    if "--json" in arguments:
        assert json.loads(shown.out)["error"] in shown.err


def test_without_a_verb_there_is_help(capsys) -> None:
    assert main([]) == 2
    assert "usage: cloudml" in capsys.readouterr().out


def test_an_error_with_json_is_json_too(tmp_path: Path, capsys) -> None:
    assert main(["train", str(tmp_path / "none.json"), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 2
    assert "no such configuration file" in found["error"]


def test_an_interrupt_is_told_in_one_line(tiny_file, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloudml_tf.data.prepare.read_flights", interrupted)
    monkeypatch.setattr("cloudml_tf.experiments.cross_validation.leave_one_out", interrupted)
    path = str(tiny_file())
    assert main(["train", path]) == 130
    assert capsys.readouterr().err.endswith(f"interrupted; `cloudml train {path} --resume` continues it.\n")
    assert main(["train", path, "--lofo"]) == 130
    assert "interrupted; --resume and --run-dir with its folder continue it." in capsys.readouterr().err


def test_an_interrupt_promises_nothing_where_nothing_goes_on(
    tiny_file, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloudml_tf.commands.check.check", interrupted)
    assert main(["check", str(tiny_file())]) == 130
    assert capsys.readouterr().err == "cloudml check: interrupted.\n"


def test_config_print_and_schema_for_machines_and_folders(tiny_file, tmp_path: Path, capsys) -> None:
    assert main(["config", "print", str(tiny_file()), "--run-dir", str(tmp_path / "resolved")]) == 0
    assert (tmp_path / "resolved" / "config.json").read_text() == capsys.readouterr().out
    path = tmp_path / "schema.json"
    assert main(["config", "schema", "-o", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": str(path), "current": True}
    assert main(["config", "schema", "--seed", "1"]) == 2  # was taken and ignored


def test_config_print_and_schema(tiny_file, tmp_path: Path, capsys) -> None:
    assert main(["config", "print", str(tiny_file()), "--seed", "77"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 77
    path = tmp_path / "schema.json"
    assert main(["config", "schema", "-o", str(path)]) == 0
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(path.read_text())
    assert main(["config", "schema", "--check", str(path)]) == 0
    path.write_text("{}")
    assert main(["config", "schema", "--check", str(path)]) == 2
    assert "is not current" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--resume"], ["--lofo"], ["--run-dir", "r"]])
def test_what_is_printed_is_not_trained(tiny_file, option: list[str], capsys) -> None:
    assert main(["train", str(tiny_file()), "--print-config", *option]) == 2
    assert f"--print-config trains nothing, and {option[0]} belongs to a training" in capsys.readouterr().err


def test_a_setting_is_explained(capsys) -> None:
    assert main(["config", "explain", "loss.weight"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "λ of the variance penalty; 0 is the plain base loss.",
        "type     number",
        "≥ 0, ≤ 100",
        "default  0.5",
    ):
        assert text in shown
    assert main(["config", "explain", "training.schedule", "--json"]) == 0
    (field,) = json.loads(capsys.readouterr().out)["fields"]
    assert (field["type"], field["default"]) == ('"cosine" or "constant"', '"cosine"')
    assert main(["config", "explain", "trainin.lr"]) == 2
    assert "no setting 'trainin'; did you mean 'training'?" in capsys.readouterr().err
    assert main(["config", "explain", "training.lr"]) == 2
    assert "no setting 'training.lr'; did you mean 'training.learning_rate'?" in capsys.readouterr().err
    assert main(["config", "explain", "loss.weight.x"]) == 2
    assert "no setting 'loss.weight.x'; " in capsys.readouterr().err


@pytest.mark.parametrize("key", ["", "split", "split.val", "data", "data.features", "data.simulation", "model.widths"])
def test_explanations_fit_80_columns_and_name_what_is_below(key: str) -> None:
    from cloudml_tf.config.described import describe, in_words

    found = describe(key)
    lines = in_words(found).splitlines()
    assert max(map(len, lines)) < 80
    for section in found.get("sections", []):
        assert all(any(line.startswith(f"  {name} ") for line in lines) for name in section["settings"])
    assert ("sections" in found) == lines[-1].startswith("more of one of them: cloudml config explain ")


def test_explaining_a_setting_loads_no_tensorflow() -> None:
    code = "import sys; from cloudml_tf.commands.main import main; main(['config', 'explain', 'loss'])"
    code += "; assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_examples_in_help_are_allowed() -> None:
    from cloudml_tf.commands.main import build_parser
    from cloudml_tf.config.load import load_config, parse_overrides
    from cloudml_tf.config.run_folder import check_overrides

    base = Path(__file__).parent.parent / "configs" / "tier1.json"
    for verb in VERBS:
        if verb in ("simulate", "search", "config", *TOOLS):
            continue
        found = re.search(r"by its path, such as (\S+);", _help_of_set(build_parser(verb), verb))
        assert found is not None
        overrides = parse_overrides([found[1]])
        load_config(base, overrides)
        if verb in ("predict", "evaluate", "ensemble", "export"):
            check_overrides(overrides)


def _help_of_set(parser: argparse.ArgumentParser, verb: str) -> str:
    commands = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction)).choices
    return next(str(one.help) for one in commands[verb]._actions if "--set" in one.option_strings)


@pytest.mark.parametrize("verb", ["search", "ablate"])
def test_the_minimal_file_in_help_is_one(verb: str, tmp_path: Path) -> None:
    from cloudml_tf.commands import ablate, search
    from cloudml_tf.experiments.grid.cells import cells, load_grid
    from cloudml_tf.experiments.search.settings import load_search

    (tmp_path / "config.json").write_text((Path(__file__).parent.parent / "configs/tier1.json").read_text())
    module = {"search": search, "ablate": ablate}[verb]
    title, _, content = module.MINIMAL.partition("\n")
    assert len(content.splitlines()) <= 5
    (tmp_path / "file.json").write_text(content)
    if verb == "search":
        assert load_search(tmp_path / "file.json").points() == 4
    else:
        assert len(cells(load_grid(tmp_path / "file.json", {}))) == 6
    assert title.startswith("a minimal ")


def test_simulate_writes_flights_and_keeps_them(tmp_path: Path, capsys) -> None:
    arguments = ["simulate", str(tmp_path / "flights"), "--count", "1", "--seed", "5", "--json"]
    settings = ["--set", "frames_per_flight=60", "--set", "frame_rows=8", "--set", "frame_columns=8"]
    settings += ["--set", "strip_width_m=3200"]
    for _ in range(2):
        assert main([*arguments, *settings, "--preset", "hard"]) == 0
        folder = Path(json.loads(capsys.readouterr().out)["flights"][0])
        assert {p.suffix for p in folder.iterdir()} == {".h5", ".hdf5"}
    assert main(["simulate", str(tmp_path), "--set", "frames=6"]) == 2
    assert "unknown key 'frames'; did you mean 'frames_per_flight'?" in capsys.readouterr().err
    assert main(["simulate"]) == 2
    assert "needs a folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("notebook", [False, True])
def test_a_notebook_is_no_terminal_though_its_shell_looks_like_one(notebook: bool) -> None:
    import pty

    code = "from cloudml_tf.utils.console import Console\nwith Console().progress('working') as step:\n    step(1, 2)"
    env = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"} | {"TERM": "xterm"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, env=env | ({"JPY_PARENT_PID": "1"} if notebook else {})
    ) as process:
        process.wait(60)
        os.write(theirs, b"end")
        shown = os.read(ours, 10_000)
    os.close(ours)
    os.close(theirs)
    assert (b"working" in shown) != notebook


def test_progress_is_quiet_where_nobody_looks(capsys) -> None:
    from cloudml_tf.utils.console import Console

    with Console().progress("working") as step:
        step(1, 2)
    assert capsys.readouterr().out == ""
