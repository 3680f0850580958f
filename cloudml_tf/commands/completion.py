"""Completion of `cloudml` in a shell: `cloudml completion bash` prints the script that the shell reads.

cloudml completion bash > ~/.local/share/bash-completion/completions/cloudml
cloudml completion zsh > "${fpath[1]}/_cloudml"
"""

import argparse
from collections.abc import Iterator

from cloudml_tf.commands.arguments import add_json, finish

SHELLS = ("bash", "zsh")
# By their metavar in the help.
FILES = {"CONFIG", "GRID", "SEARCH", "FILE", "RUN_OR_MODEL", "OUT", "…"}
FOLDERS = {"RUN", "MODEL", "FLIGHT", "DIR"}


def script(shell: str) -> str:
    """The completion script for every command and option."""
    import shtab

    from cloudml_tf.commands.main import build_parser

    parser = build_parser(every=True)
    for action in _actions(parser):
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a parser and of the parsers below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to complete in")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    text = script(args.shell)
    if not args.json:
        print(text)
    return finish(args, {"shell": args.shell, "script": text})
