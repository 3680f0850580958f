"""The guide for own data cannot rot: its files are written and its commands are run, in order."""

import re
import shlex
from pathlib import Path

import pytest

from cloudml_tf.commands.main import main

GUIDE = (Path(__file__).parent.parent / "docs" / "own-data.md").read_text(encoding="utf-8")
FILES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines() if line]


@pytest.mark.slow
def test_the_guide_leads_from_files_to_a_trained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(FILES[0], "own-data.md", "exec"), {})
    shown = ""
    assert len(COMMANDS) <= 10
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "cloudml"
        assert main(arguments) == 0, command
        shown += capsys.readouterr().out
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    for quoted in re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)[0].splitlines():
        assert quoted == "…" or quoted in shown, quoted
