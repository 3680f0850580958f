"""Write docs/reference from the code: `python docs/make_reference.py`. tests/test_reference.py fails where it is old.

config.md: every field of a configuration, from the pydantic models; simulation.md: those of the simulator. python.md:
public names, signatures and the first paragraph of their docstrings. commands.md: every command and option, from the
command line's own parser.
"""

import argparse
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import cloudml_tf
from cloudml_tf.commands.arguments import exit_codes
from cloudml_tf.commands.main import VERBS, build_parser
from cloudml_tf.config.data import REPRODUCTION
from cloudml_tf.config.described import default_of, limits_of, type_name
from cloudml_tf.config.mistakes import models_in
from cloudml_tf.config.schema import Config
from cloudml_tf.config.simulation import PRESETS, SimulationConfig
from cloudml_tf.utils.errors import EXIT_CODES

HOME = Path(__file__).parent / "reference"
MODULES = (
    "losses",
    "nn.heads",
    "metrics",
    "callbacks",
    "nn.monitors",
    "models",
    "nn.introspection",
    "nn.layers",
    "nn.nadir",
    "nn.masked_reconstruction",
)
FIRST = (  # what a user sets first, in that order
    "experiment_name",
    "data.path",
    "data.camera.files",
    "data.lidar.files",
    "data.camera.channels",
    "data.camera.downsample",
    "data.camera.nadir",
    "data.camera.across_track_axis",
    "data.sun_angles",
    "target.name",
    "target.coverage",
    "split",
    "temporal_frames",
    "model.footprint",
    "loss.weight",
    "training.max_epochs",
    "training.batch_size",
    "training.learning_rate",
    "training.early_stopping_patience",
    "seed",
)
SECTIONS = ("", "data", "split", "target", "training", "model", "loss", "augmentation", "output", "evaluation")
SIMULATOR = "data.simulation"
COLUMNS = "| field | type | default | limits | meaning |\n|---|---|---|---|---|"
HEAD = "# {}\n\nReference, made by `python docs/make_reference.py` · [all pages](../README.md)\n\n{}\n"


def linked(model: type) -> str:
    """A section as a link to its table."""
    page = "simulation.md" if model is SimulationConfig else ""
    return f"[{model.__name__}]({page}#{model.__name__.lower()})"


def sections(model: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> None:
    """Collect every model below one, in reading order, with the dotted path under which it stands."""
    seen[model] = path
    for name, field in model.model_fields.items():
        for found in models_in(field.annotation):
            if found not in seen:
                sections(found, f"{path}.{name}".lstrip("."), seen)


def config_page() -> str:
    """The fields that are set first, then a table a section, then the fields that reproduce mistakes of others."""
    intro = (
        "Every field of a configuration file. The dotted path before a field's name is what `--set` takes:\n"
        "`--set training.max_epochs=5`. A field without a meaning is named by what it is. Unknown keys are refused.\n"
        "Which values do not go together is checked as a whole: `cloudml config print CONFIG` says so at once."
    )
    parts = [HEAD.format("Configuration: every field", intro), "## What to set first\n"]
    parts.append("\n".join(["| field | default | meaning |", "|---|---|---|", *map(first_row, FIRST)]) + "\n")
    found = {path: model for path, model in models().items() if not path.startswith(SIMULATOR)}
    parts += [section(model, path) for path, model in sorted(found.items(), key=lambda pair: place(pair[0]))]
    rows = [
        field_row(f"{path}.{name}", field)
        for path, model in found.items()
        for name, field in model.model_fields.items()
        if is_for_reproduction(field)
    ]
    text = "The defaults are right. The other values repeat what others did and this project warns about, to show it."
    parts.append(f"## For reproduction\n\n{text}\n\n" + "\n".join([COLUMNS, *rows]) + "\n")
    return "\n".join(parts)


def simulation_page() -> str:
    """The simulator's fields and its presets."""
    intro = "Fields of simulated flights, below `data.simulation`. What they make: [simulator.md](../simulator.md)."
    parts = [HEAD.format("Configuration: the simulator", intro)]
    parts += [section(model, path) for path, model in models().items() if path.startswith(SIMULATOR)]
    return "\n".join([*parts, preset_table()])


def models() -> dict[str, type[BaseModel]]:
    """Path -> model of every section, in reading order; kinds of one field have a number behind the path."""
    seen: dict[type[BaseModel], str] = {}
    sections(Config, "", seen)
    kinds = dict.fromkeys(seen.values(), 0)
    found = {}
    for model, path in seen.items():
        kinds[path] += 1
        found[path if kinds[path] == 1 else f"{path}#{kinds[path]}"] = model
    return found


def place(path: str) -> int:
    """Where a section stands on the page: sections that are set first come first."""
    root = path.split(".")[0].split("#")[0]
    return SECTIONS.index(root) if root in SECTIONS else len(SECTIONS)


def section(model: type[BaseModel], path: str) -> str:
    """A heading, what the section is, and a row a field."""
    where = f"`{path.split('#')[0]}`: " if path else ""
    rows = [field_row(name, field) for name, field in model.model_fields.items() if not is_for_reproduction(field)]
    return f"## {model.__name__}\n\n{where}{first_paragraph(model.__doc__)}\n\n" + "\n".join([COLUMNS, *rows]) + "\n"


def field_row(name: str, field: Any) -> str:
    """Name, type, default, limits and meaning of a field."""
    limits = ", ".join(limits_of(field.metadata))
    return row(f"`{name}`", type_name(field.annotation, linked), default_of(field), limits, field.description or "")


def first_row(path: str) -> str:
    """Path, default and meaning of one of the fields that are set first."""
    *parents, name = path.split(".")
    field = models()[".".join(parents)].model_fields[name]
    return row(f"`{path}`", default_of(field), field.description)


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def is_for_reproduction(field: Any) -> bool:
    """Whether a field's other values only repeat a mistake of others."""
    return field.json_schema_extra == REPRODUCTION


def preset_table() -> str:
    """What each preset of the simulator changes."""
    rows = ["| preset | changes |", "|---|---|"]
    for name, changes in PRESETS.items():
        plain = {key: [r.name for r in value] if key == "regimes" else value for key, value in changes.items()}
        told = ", ".join(f"`{key}` {json.dumps(value)}" for key, value in plain.items())
        rows.append(f"| `{name}` | {told or 'nothing'} |")
    return "## Presets of the simulator\n\n" + "\n".join(rows) + "\n"


def first_paragraph(doc: str | None) -> str:
    """Up to the first empty line, on one line."""
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def signature_of(thing: Any) -> str:
    """Parameters and defaults, without types."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    shown = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    text = str(inspect.Signature(shown))
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)


def public_names(module: Any) -> list[str]:
    """Classes and functions that a module defines and does not hide."""
    found = [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and (inspect.isclass(thing) or inspect.isfunction(thing))
    ]
    return [name for name in found if vars(module)[name].__module__ == module.__name__]


def python_page() -> str:
    """One section for each module: name, signature, first paragraph."""
    intro = (
        "What can be used outside of this package, by module. Names in bold can be imported from `cloudml_tf` itself.\n"
        "These modules import Keras and NumPy only. How they go together: [model-fit.md](../model-fit.md)."
    )
    parts = [HEAD.format("Python: public names", intro)]
    for name in MODULES:
        module = importlib.import_module(f"cloudml_tf.{name}")
        parts.append(f"## cloudml_tf.{name}\n\n{first_paragraph(module.__doc__)}\n")
        for public in public_names(module):
            thing = getattr(module, public)
            shown = f"**`{public}`**" if public in cloudml_tf.__all__ else f"`{public}`"
            parts.append(f"### {shown}\n\n`{public}{signature_of(thing)}`\n\n{first_paragraph(thing.__doc__)}\n")
    return "\n".join(parts)


def commands_page() -> str:
    """A section per command: what it does, an example, its options; then the exit codes."""
    intro = (
        "Each command is `cloudml COMMAND`, or `python -m cloudml_tf COMMAND`.\n"
        "`--set`, `--seed`, `--json` and `--run-dir` mean the same wherever they stand."
    )
    parts = [HEAD.format("Commands: every command and option", intro)]
    summary = [
        "| command | |",
        "|---|---|",
        *(f"| [`{verb}`](#{verb}) | {text} |" for verb, (text, _) in VERBS.items()),
    ]
    parts.append("\n".join(summary) + "\n")
    for verb, (text, example) in VERBS.items():
        parser = build_parser(verb)
        choices = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
        codes = ", ".join(f"[{code}](#exit-codes)" for code in exit_codes(verb))
        parts.append(f"## {verb}\n\n{text[0].upper() + text[1:]}.\n\n    {example}\n\n{options(choices[verb])}\n")
        parts.append(f"Exit codes: {codes}.\n")
    table = ["| exit code | |", "|---|---|", *(f"| {code} | {text} |" for code, text in EXIT_CODES.items())]
    parts.append("## Exit codes\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def options(parser: argparse.ArgumentParser, before: str = "") -> str:
    """A table of a parser's arguments; those of its actions (`config print`) follow."""
    rows = [] if before else ["| argument | meaning |", "|---|---|"]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            rows += [options(below, f"{name} ") for name, below in action.choices.items()]
            continue
        if action.option_strings:
            value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
            takes = "" if action.nargs == 0 else f" {value}"
            shown = ", ".join(action.option_strings) + takes
        else:
            shown = str(action.metavar or action.dest) + (" …" if action.nargs in ("+", "*") else "")
        meaning = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        rows.append("| " + f"`{before}{shown}`".replace("|", "\\|") + f" | {meaning} |")
    return "\n".join(rows)


def pages() -> dict[str, str]:
    """File name to content."""
    return {
        "config.md": config_page(),
        "simulation.md": simulation_page(),
        "python.md": python_page(),
        "commands.md": commands_page(),
    }


if __name__ == "__main__":
    HOME.mkdir(exist_ok=True)
    for name, content in pages().items():
        (HOME / name).write_text(content, encoding="utf-8")
