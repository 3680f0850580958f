"""The project's own benchmarks: `cloudml benchmark` lists them, `cloudml benchmark seeds configs/tier1.json` runs one.

They are scripts of the source checkout's folder `benchmarks/`, and not part of an installed package.
"""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

import cloudml_tf
from cloudml_tf.commands.arguments import add_json, finish
from cloudml_tf.utils.console import Console
from cloudml_tf.utils.errors import ConfigError


def folder() -> Path:
    """`benchmarks/` of the checkout that this package is imported from. Raises `ConfigError` where there is none."""
    home = Path(cloudml_tf.__file__).resolve().parent.parent
    if not (home / "benchmarks").is_dir() or not (home / "pyproject.toml").is_file():
        raise ConfigError(
            f"{home} holds no benchmarks: they come with the source checkout, not with the installed package. "
            "Clone the repository and install it with `pip install -e .`."
        )
    return home / "benchmarks"


def benchmarks() -> dict[str, tuple[Path, str]]:
    """Script and first line of its docstring, by name."""
    found = {}
    for path in sorted(folder().glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = (path, text.splitlines()[0].split(": `")[0] if text else "")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add = parser.add_argument
    add_json(parser)
    add("name", metavar="NAME", nargs="?", help="the benchmark to run; all are listed without one")
    add("rest", metavar="…", nargs=argparse.REMAINDER, help="its own arguments; `NAME --help` shows them")


def run(args: argparse.Namespace) -> int:
    """List the benchmarks, or run one in a subprocess and return its exit code."""
    known = benchmarks()
    if args.name is None:
        texts = {name: text for name, (_, text) in known.items()}
        Console(quiet=args.json).table("benchmarks", ["name", "what it measures"], [list(row) for row in texts.items()])
        return finish(args, {"benchmarks": texts})
    if args.name not in known:
        raise ConfigError(f"no benchmark '{args.name}'; there are: {', '.join(known)}.")
    if args.json:
        raise ConfigError("--json only lists the benchmarks; to run one, leave --json out.")
    # The script gets its own name as program name: its help and errors should read as if called directly.
    return subprocess.run([sys.executable, str(known[args.name][0]), *args.rest], check=False).returncode
