"""The fenced blocks of README and docs, and the one rule of how they are tested.

    nothing before a block                 sh: its commands are parsed by `make test` and run by `make test-all`
                                           python: run by `make test`, the blocks of a page one after the other
                                           json: a fragment of a configuration, a grid or a search; validated
    <!-- after the commands -->            python that reads what the page's commands wrote: run by `make test-all`
    <!-- not run: the reason -->           only read: it needs a server, another machine, other data, or hours

The shell's lines of the notebook are parsed as well; tests/test_notebook.py runs them.
The comment is the line before the fence. Blocks without a language, or in `text`, show output and are not tested.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "colab_training.ipynb"
BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?```(sh|python|json)[^\n]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """One fenced block; `mark` is the comment before it, or empty."""

    page: Path
    line: int
    mark: str
    language: str
    code: str

    @property
    def name(self) -> str:
        """Page and line, as a reader finds it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str | None:
        """Why it cannot be run; None where it can."""
        found = re.fullmatch(r"not run: (.+)", self.mark)
        return found.group(1) if found else None


def snippets(page: Path) -> list[Snippet]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(page, text.count("\n", 0, found.start(2)) + 1, found.group(1) or "", found.group(2), found.group(3))
        for found in BLOCK.finditer(text)
    ]


def every(language: str) -> list[Snippet]:
    """All blocks of one language."""
    return [snippet for page in PAGES for snippet in snippets(page) if snippet.language == language]


def notebook_commands() -> list[Snippet]:
    """The shell's lines of each cell of the notebook; `line` is the cell's number."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    lines = [[line.strip()[1:] for line in cell["source"] if line.startswith("!")] for cell in cells]
    return [Snippet(NOTEBOOK, n, "", "sh", "\n".join(found)) for n, found in enumerate(lines, 1) if found]


def commands(code: str) -> list[list[str]]:
    """The words of each command of a shell block that is one of ours: cloudml, python, make.

    Loops, variables, pipes and joined lines are flattened; a variable counts as the number 1.
    """
    flat = re.sub(r"\\\n\s*", " ", code)
    flat = re.sub(r"\{1,2,3,4,5\}", "1", re.sub(r"\$\w+|\$\(seq [^)]*\)", "1", flat))
    found: list[list[str]] = []
    for line in flat.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not re.fullmatch(r"[;&|>]+", word):
                words.append(word)
                continue
            while words and (words[0] in ("do", "then", "time") or re.match(r"\w+=", words[0])):
                words.pop(0)
            if words and words[0] in ("cloudml", "python", "make"):
                found.append(words)
            words = [">"] if ">" in word else []  # a file that is written to is no command
    return found
