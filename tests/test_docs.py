"""README and docs cannot rot: Python runs, commands parse, fragments fit, links lead somewhere (see snippets.py)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import merged
from snippets import PAGES, ROOT, Snippet, commands, every, notebook_commands, snippets

from cloudml_tf.commands.arguments import config_from
from cloudml_tf.commands.main import VERBS, build_parser
from cloudml_tf.config.load import parse_config, read_content, set_by_path
from cloudml_tf.experiments.grid.cells import load_grid
from cloudml_tf.experiments.search.settings import load_search

README = (ROOT / "README.md").read_text()
INDEX = ROOT / "docs/README.md"
REFERENCE = sorted((ROOT / "docs/reference").glob("*.md"))
CONFIGURED = ("train", "check", "pretrain")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place: dict[str, object] = {}
    for snippet in snippets(page):
        if snippet.language == "python" and not snippet.mark:
            exec(compile(snippet.code, snippet.name, "exec"), place)


@pytest.mark.parametrize("snippet", every("sh") + notebook_commands(), ids=lambda snippet: snippet.name)
def test_commands_are_commands(snippet: Snippet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(snippet.code):
        for name in words:
            if re.match(r"(configs|benchmarks|docs)/\S+\.(json|py)$", name):
                assert (ROOT / name).is_file(), f"{snippet.name}: {name}"
        if words[0] == "make":
            assert re.search(rf"^{words[-1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), snippet.name
        elif words[:3] == ["python", "-m", "cloudml_tf"]:
            _parse(words[3:], snippet)
        elif words[:3] == ["python", "-m", "cloudml_tf.train"]:
            _parse(["train", *words[3:]], snippet)
        elif words[0] == "cloudml":
            _parse(words[1:], snippet)


def _parse(words: list[str], snippet: Snippet) -> None:
    """The parser takes the words, and the configuration its `--set`."""
    if words[-1] in ("--help", "--version"):
        assert words[0] in VERBS or words[0].startswith("--"), snippet.name
        return
    try:
        args = build_parser(words[0]).parse_args(words)
    except SystemExit:
        pytest.fail(f"{snippet.name}: cloudml {' '.join(words)} is not understood")
    if words[0] in CONFIGURED and (ROOT / args.config).is_file():
        config_from(args)


@pytest.mark.parametrize("snippet", every("json"), ids=lambda snippet: snippet.name)
def test_fragments_validate(snippet: Snippet, tmp_path: Path) -> None:
    if snippet.reason:
        return
    text = snippet.code.strip()
    content = json.loads(text if text.startswith("{") else "{" + text + "}")
    if "space" in content or "rows" in content:
        for name in ("tier1", "les"):
            (tmp_path / f"{name}.json").write_text((ROOT / f"configs/{name}.json").read_text())
        (tmp_path / "given.json").write_text(json.dumps(content))
        (load_search if "space" in content else load_grid)(tmp_path / "given.json", {})
        return
    whole = merged(read_content(ROOT / "configs/tier1.json"), {k: v for k, v in content.items() if "." not in k})
    for key, value in content.items():
        if "." in key:
            set_by_path(whole, key, value)
    whole.pop("$schema", None)
    parse_config(whole, source=snippet.name)


def test_every_mark_is_one_of_the_rule() -> None:
    for page in PAGES:
        for snippet in snippets(page):
            assert snippet.mark in ("", "after the commands") or snippet.reason, f"{snippet.name}: {snippet.mark}"


def test_quick_commands_run() -> None:
    """`cloudml config …` and help texts are run here, all else in test_docs_slow.py."""
    quick = [w for s in every("sh") if not s.reason for w in commands(s.code) if w[1:2] == ["config"] or "--help" in w]
    for words in quick:
        line = [sys.executable, "-m", "cloudml_tf", *words[1:]]
        done = subprocess.run(line, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_in_the_index_and_leads_back_to_it() -> None:
    index = INDEX.read_text()
    for page in [*PAGES[2:], *REFERENCE]:
        if page == INDEX:
            continue
        name = page.relative_to(INDEX.parent)
        assert f"]({name})" in index, f"docs/README.md does not name {name}"
        back = "../README.md" if page in REFERENCE else "README.md"
        assert f"[all pages]({back})" in page.read_text().splitlines()[2], f"{name}: its third line leads to the index"


def test_every_verb_is_explained() -> None:
    verbs = (ROOT / "docs/reference/commands.md").read_text()
    for verb in VERBS:
        assert f"## {verb}\n" in verbs


def test_every_package_is_in_contributing() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "cloudml_tf").iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        assert path.name.startswith("__") or path.name == "py.typed" or f"`{name}`" in text, name
    for named in re.findall(r"`((?:nn|config|data|evaluation|reports|train|inference)/\w*(?:\.py)?)`", text):
        assert (ROOT / "cloudml_tf" / named).exists(), named


def test_the_readme_starts_in_one_screen() -> None:
    assert len(README.splitlines()) <= 60


def test_the_tests_that_a_page_names_are_there() -> None:
    """`pytest tests/test_x.py -k "this or that"`: each word is part of the name of a test in those files."""
    for page in PAGES:
        for files, _, words in re.findall(r"`pytest ((tests/\w+\.py ?)+)(?:-k ([^`]+))?`", page.read_text()):
            names = " ".join(re.findall(r"def (test_\w+)", "".join((ROOT / f).read_text() for f in files.split())))
            for word in words.strip('"').split(" or ") if words else []:
                assert word in names, f"{page.name}: {word} in {files}"
