"""What surrounds a process and must not end it: terminals, notebooks, privacy, byte order marks, paths, folders."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudml_tf.commands.main import VERBS, main
from cloudml_tf.config.load import cache_folder, load_config
from cloudml_tf.train import tracking
from cloudml_tf.train.tracking import Tracker, wandb_mode
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.environment import draw_somewhere, show_what_can_be_shown
from cloudml_tf.utils.errors import ConfigError, RunError

TIER1 = Path(__file__).parent.parent / "configs" / "tier1.json"


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a piece of Python in a process of this environment."""
    known = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, env=known, timeout=120)


def terminal(monkeypatch: pytest.MonkeyPatch, coding: str, errors: str = "strict") -> tuple[io.BytesIO, io.BytesIO]:
    """Put a terminal of another encoding in the place of stdout and stderr."""
    written = io.BytesIO(), io.BytesIO()
    for name, raw in zip(("stdout", "stderr"), written, strict=True):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=coding, errors=errors, write_through=True))
    return written


@pytest.mark.parametrize("coding", ["ascii", "cp1252", "latin-1", "cp437", "shift_jis"])
def test_help_of_every_command_is_shown_on_any_terminal(monkeypatch: pytest.MonkeyPatch, coding: str) -> None:
    out, _ = terminal(monkeypatch, coding)
    for verb in VERBS:
        with pytest.raises(SystemExit) as end:
            main([verb, "--help"])
        assert end.value.code == 0
    assert out.getvalue().decode(coding).count("usage: cloudml") == len(VERBS)


@pytest.mark.parametrize("coding", ["ascii", "cp1252", "utf-8"])
def test_a_console_and_refusals_show_what_can_be_shown(monkeypatch: pytest.MonkeyPatch, coding: str) -> None:
    out, err = terminal(monkeypatch, coding)
    console = Console()
    console.say("R² → λ ≥ 0 … ☁")
    console.table("Größe ☁", ["R²", "σ"], [["→", "1"], ["0.5", "☁"]])
    with console.progress("läuft ☁") as update:
        update(1, 2)
    print("R² \udcff")  # a file name that is no UTF-8, printed outside of the console
    assert main(["no☁command"]) == 2
    assert main(["check", "größe☁\udcff.json", "--json"]) == 2
    assert out.getvalue().decode(coding)
    assert "unknown command" in err.getvalue().decode(coding)


def test_json_is_ascii_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = terminal(monkeypatch, "ascii")
    assert main(["check", "größe☁.json", "--json"]) == 2
    assert "größe☁.json" in json.loads(out.getvalue().decode("ascii"))["error"]


def test_an_encoding_that_replaces_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = terminal(monkeypatch, "ascii", "backslashreplace")
    show_what_can_be_shown()
    print("²")
    assert out.getvalue() == b"\\xb2\n"
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(errors="strict"))  # a stream that cannot change
    show_what_can_be_shown()


@pytest.mark.parametrize("setting", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_process_without_utf8_prints_its_help_and_its_errors(setting: dict[str, str]) -> None:
    code = (
        "from cloudml_tf.commands.main import main; main(['check', 'gr\\u00f6\\u2601.json']); main(['train', '--help'])"
    )
    done = python(code, **setting)
    assert done.returncode == 0
    assert b"usage: cloudml train" in done.stdout
    assert b"UnicodeEncodeError" not in done.stderr


INLINE = "module://matplotlib_inline.backend_inline"


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("nonsense", "cloudml_tf.losses, cloudml_tf.inference.quicklook"),  # Keras imports matplotlib too
        (INLINE, "cloudml_tf.reports.figure, cloudml_tf.reports.plots, cloudml_tf.reports.maps"),
        pytest.param("module://no.such.module", "cloudml_tf.reports.plots", marks=pytest.mark.slow),
        pytest.param("TkAgg", "cloudml_tf.reports.maps", marks=pytest.mark.slow),
        pytest.param("nonsense", "cloudml_tf.experiments.search.page", marks=pytest.mark.slow),
    ],
)
def test_no_backend_of_a_notebook_ends_anything(name: str, modules: str) -> None:
    done = python(f"import {modules}; print('fine')", MPLBACKEND=name)
    assert done.stdout.strip() == b"fine", done.stderr[-500:]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("nonsense", "Agg"),
        ("module://no.such.module", "Agg"),
        ("module://", "Agg"),
        ("TkAgg", "TkAgg"),
        ("svg", "svg"),
        ("module://matplotlib.backends.backend_agg", "module://matplotlib.backends.backend_agg"),
    ],
)
def test_a_backend_that_exists_is_left_alone(monkeypatch: pytest.MonkeyPatch, given: str, kept: str) -> None:
    monkeypatch.setenv("MPLBACKEND", given)
    draw_somewhere()  # without a change where matplotlib is there already
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    draw_somewhere()
    assert os.environ["MPLBACKEND"] == kept


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        ("online", {}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "dryrun"}, "offline"),
        ("online", {"WANDB_MODE": " Disabled "}, "disabled"),
        ("online", {"WANDB_MODE": "nonsense"}, "offline"),
        ("online", {"WANDB_MODE": "run"}, "online"),
        ("online", {"WANDB_DISABLED": "true"}, "disabled"),
        ("online", {"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled"),
        ("online", {"WANDB_DISABLED": "false"}, "online"),
        ("offline", {"WANDB_MODE": "online"}, "offline"),
        ("offline", {"WANDB_MODE": "disabled"}, "disabled"),
        ("disabled", {"WANDB_MODE": "online"}, "disabled"),
    ],
)
def test_the_more_private_mode_of_wandb_wins(
    configured: tracking.Mode,
    environment: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny,
    tmp_path,
) -> None:
    import wandb

    asked: list[str] = []

    def init(**given: object) -> object:
        asked.append(str(given["mode"]))
        return SimpleNamespace(finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WANDB_API_KEY": "x" * 40, **environment}.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(configured) == expected
    Tracker(tiny(tracking={"wandb": configured}), tmp_path).close()
    assert asked == ([] if expected == "disabled" else [expected])


@pytest.mark.parametrize(("silent", "expected"), [(None, True), ("true", True), ("false", False), ("0", False)])
def test_wandb_is_as_silent_as_the_environment_asks(
    silent: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch, tiny, tmp_path
) -> None:
    import wandb

    seen: list[bool] = []
    monkeypatch.setattr(wandb, "init", lambda **given: seen.append(bool(given["settings"].silent)))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")  # so that it is put back
    if silent is None:
        monkeypatch.delenv("WANDB_SILENT")
    else:
        monkeypatch.setenv("WANDB_SILENT", silent)
    Tracker(tiny(tracking={"wandb": "offline"}), tmp_path)
    assert seen == [expected]


@pytest.mark.parametrize("folder", ["plain", "mit Leerzeichen und Ümläut", "雲 and 'quotes'"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig"])
def test_a_configuration_with_a_byte_order_mark_in_any_folder(folder: str, coding: str, tmp_path: Path) -> None:
    path = tmp_path / folder / "Konfig ü.json"
    path.parent.mkdir()
    path.write_text(TIER1.read_text(encoding="utf-8"), encoding=coding)
    assert load_config(path) == load_config(TIER1)


def test_a_byte_order_mark_inside_is_still_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("\ufeff\ufeff" + TIER1.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid JSON at line 1"):
        load_config(path)


@pytest.mark.parametrize("place", ["/proc/nowhere", "FILE/cache"])
def test_a_cache_that_cannot_be_written_names_the_setting(place: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    place = place.replace("FILE", str(tmp_path / "a file"))
    with pytest.raises(ConfigError, match=r"data.cache needs a folder that can be written.*--set data.cache="):  # noqa: SIM117
        with cache_folder(place):
            raise RunError("cannot be written")


def test_another_fault_inside_a_cache_that_can_be_written_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="something else"), cache_folder(str(tmp_path / "new")):
        raise RunError("something else")
    with cache_folder(str(tmp_path / "never made")) as path:  # reading what is there needs no folder to write into
        assert not path.exists()


def test_a_missing_home_says_which_setting_helps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    assert main(["check", str(TIER1), "--no-probe"]) == 2
    assert "--set data.cache=" in capsys.readouterr().err
