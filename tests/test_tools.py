"""Completion of shells, the list of benchmarks, and how fast help is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cloudml_tf
from cloudml_tf.commands.completion import SHELLS, script
from cloudml_tf.commands.main import VERBS, main
from cloudml_tf.utils.errors import EXIT_CODES

ROOT = Path(__file__).parent.parent
COMPLETE = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_shtab_cloudml cloudml "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
printf "%s\\n" "${{COMPREPLY[@]}}"
"""


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words, in a folder."""
    (folder / "completion.bash").write_text(script("bash"))
    code = COMPLETE.format(script=folder / "completion.bash", words=" ".join(words))
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_verbs_options_choices_and_files(tmp_path: Path) -> None:
    (tmp_path / "tier1.json").touch()
    assert completed(tmp_path, "cloudml", "in") == ["init"]
    assert completed(tmp_path, "cloudml", "init", "--fr") == ["--from"]
    assert completed(tmp_path, "cloudml", "simulate", "--preset", "no_") == ["no_signal"]
    assert completed(tmp_path, "cloudml", "train", "tier") == ["tier1.json"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_is_in_the_script(shell: str, capsys) -> None:
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert [verb for verb in VERBS if verb not in shown] == []
    assert main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shell"] == shell


def test_benchmarks_are_listed_with_what_they_measure(capsys) -> None:
    assert main(["benchmark", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["benchmarks"]
    assert set(found) == {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert all(found.values())
    assert main(["benchmark"]) == 0
    assert found["seeds"] in capsys.readouterr().out


def test_a_benchmark_runs_with_its_own_arguments_and_exit_code(capfd) -> None:
    assert main(["benchmark", "seeds", "--help"]) == 0
    assert "usage: seeds.py" in capfd.readouterr().out
    assert main(["benchmark", "seeds", "--no-such-option"]) == 2


def test_an_unknown_benchmark_and_a_missing_checkout_are_told(tmp_path: Path, monkeypatch, capsys) -> None:
    assert main(["benchmark", "speed"]) == 2
    assert "no benchmark 'speed'; there are: archive, calibrate, check_faults" in capsys.readouterr().err
    assert main(["benchmark", "--json", "seeds"]) == 2
    assert "leave --json out" in capsys.readouterr().err
    monkeypatch.setattr(cloudml_tf, "__file__", str(tmp_path / "site-packages" / "cloudml_tf" / "__init__.py"))
    assert main(["benchmark"]) == 2
    assert "they come with the source checkout" in capsys.readouterr().err


def test_help_is_there_at_once() -> None:
    """Under half a second of the processor's time, the least of three."""
    command = [sys.executable, "-m", "cloudml_tf", "--help"]
    taken = []
    for _ in range(3):
        started = os.times().children_user
        subprocess.run(command, capture_output=True, check=True)
        taken.append(os.times().children_user - started)
    assert min(taken) < 0.5


def test_the_page_of_the_command_line_names_every_verb_and_exit_code() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`{verb}`" not in page] == []
    assert [code for code in EXIT_CODES if f"| {code} |" not in page] == []
