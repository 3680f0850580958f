"""Load, override, print and describe configurations: `cloudml config print|schema`.

config = load_config("configs/tier1.json", {"training.max_epochs": 5})
"""

import contextlib
import difflib
import json
import os
import re
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cloudml_tf.config.renamed import RENAMED, rename, warn_of_old_names
from cloudml_tf.config.schema import Config as Config
from cloudml_tf.utils import plain_json
from cloudml_tf.utils.errors import ConfigError, RunError
from cloudml_tf.utils.redaction import check_no_secret
from cloudml_tf.utils.suggest import did_you_mean

Model = typing.TypeVar("Model", bound=BaseModel)
MOST_LISTED, LONGEST_SHOWN = 20, 200  # mistakes of one file, and characters of each value that an error shows
LONGEST_PATH = 4096
SCHEMA_PATH = Path("configs/schema.json")


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and validate a JSON file. `overrides` maps dotted paths to values, e.g. {"training.max_epochs": 5}.

    Raises `ConfigError`, naming the file, each bad field by its path, and the nearest known name of an unknown key.
    """
    content = read_content(path)
    if "base" in content and "split" not in content:
        command = "ablate" if "rows" in content else "search"
        raise ConfigError(f"{path}: is not the configuration of one training. Run it with `cloudml {command} {path}`.")
    return resolve(content, overrides, str(path))


def resolve(content: dict[str, Any], overrides: Mapping[str, Any] | None, source: str) -> Config:
    """The configuration of a dictionary, which takes up the overrides; `source` names it in errors."""
    for key, value in (overrides or {}).items():
        set_by_path(content, key, value)
    check_no_secret(json.dumps(content, ensure_ascii=False), source)
    return parse_config(content, source)


def read_content(path: str | Path) -> dict[str, Any]:
    """The JSON object of a configuration file, not yet validated. Raises `ConfigError` where it is not one."""
    path = Path(path)
    if path.is_dir():
        inside = sorted(path.glob("*.json"))
        hint = "The command `init --from FILE…` proposes one for your flights."
        hint = f"Did you mean {inside[0]}?" if len(inside) == 1 else hint
        raise ConfigError(f"{path}: is a folder; give a configuration, which is a JSON file. {hint}")
    try:
        content = plain_json.read(path)
    except FileNotFoundError:
        hint = did_you_mean(path, ".json") or " The command `init` writes one."
        raise ConfigError(f"{path}: no such configuration file.{hint}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error}). Give a JSON file.") from None
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a configuration is a JSON object {{...}}. Received: {type(content).__name__}.")
    content.pop("$schema", None)
    warn_of_old_names(content)
    return content


def parse_config(content: Mapping[str, Any], source: str = "configuration") -> Config:
    """Validate a dictionary; `source` names it in errors."""
    return validated(Config, content, source)


def validated(model: type[Model], content: Mapping[str, Any], source: str) -> Model:
    """A dictionary as one of the project's models. Raises `ConfigError`, which `source` begins."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        errors = list(explain(error, model).values())
        more = [f"and {len(errors) - MOST_LISTED} more"] if len(errors) > MOST_LISTED else []
        raise ConfigError(f"{source}: " + "\n  ".join([*errors[:MOST_LISTED], *more])) from None


def explain(error: ValidationError, root: type[BaseModel] = Config) -> dict[str, str]:
    """What is wrong with each field of a dictionary that `root` refused, by dotted path; "" is the whole file."""
    by_field: dict[str, list[Any]] = {}
    for detail in error.errors():
        by_field.setdefault(".".join(_follow(detail["loc"], root)[0]), []).append(detail)
    return {where: _explain(where, details, root) for where, details in by_field.items()}


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Parse ["training.max_epochs=5", ...] to a mapping. Values that are not JSON are taken as text."""
    overrides = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set needs key=value, such as training.max_epochs=5. Received: {shortened(pair)!r}")
        try:
            overrides[key.strip()] = plain_json.parse(text)
        except json.JSONDecodeError:
            overrides[key.strip()] = text
        except ValueError as error:
            raise ConfigError(f"--set {shortened(key)}: {error}.") from None
        if not plain_json.is_text(pair):
            raise ConfigError(f"--set takes UTF-8. Received: {pair[:LONGEST_SHOWN]!r}")
    for old, new in RENAMED.items():
        if {old, new} <= overrides.keys():
            raise ConfigError(f"--set {old} is the old name of {new}, and both are set; keep {new}.")
    warn_of_old_names(overrides)
    return overrides


def resolved_json(config: Config) -> str:
    """The whole configuration with every default, as JSON text."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def schema_json() -> str:
    """The JSON Schema that lets an editor complete and check configurations."""
    schema = Config.model_json_schema()
    schema["properties"]["$schema"] = {"type": "string"}
    return json.dumps(schema, indent=2) + "\n"


def is_schema(path: Path) -> bool:
    """Whether a file holds the current JSON Schema. Compared as values: pydantic before 2.11 writes 0.0 for 0."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == json.loads(schema_json()))
    except (OSError, ValueError):
        return False


def expand(text: str) -> Path:
    """Expand `~`, ${NAME} and ${NAME:-default} in a path of a configuration. Raises `ConfigError`."""
    if len(text) > LONGEST_PATH or "\x00" in text:
        raise ConfigError(f"'{shortened(text)}' is not a path: it is too long, or holds a null character.")

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(3)
        found = os.environ.get(name) or default
        if found is None:
            raise ConfigError(f"The path '{text}' needs the environment variable {name}. Set it, or give a default.")
        return found

    path = Path(re.sub(r"\$\{(\w+)(:-([^}]*))?\}", value, text))
    try:
        return path.expanduser()
    except RuntimeError:  # no home folder, or no such user
        return path


@contextlib.contextmanager
def cache_folder(text: str) -> Iterator[Path]:
    """Yield the folder of `data.cache` to a block that writes there, or reads what is there already.

    Raises `ConfigError`, which names the setting, where the block fails and the folder cannot be written.
    """
    path = expand(text)
    try:
        yield path
    except (RunError, OSError):
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            elsewhere = Path(tempfile.gettempdir()) / "cloudml_tf"
            raise ConfigError(
                f"data.cache needs a folder that can be written, for simulated flights and decoded frames. Received: "
                f"{path} ({error.strerror}). Choose another one, such as --set data.cache={elsewhere}"
            ) from None
        raise


def shortened(text: str) -> str:
    """Cut a text to the length that an error shows."""
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def set_by_path(content: dict[str, Any], key: str, value: Any) -> None:
    """Set the value at a dotted path, in place; missing sections are created, and old names replaced."""
    rename(content)
    *parents, last = RENAMED.get(key, key).split(".")
    section = content
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {shortened(key)}: '{shortened(name)}' is a value, not a section.")
    section[last] = value


def _explain(where: str, details: list[Any], root: type[BaseModel]) -> str:
    """One line about a field. A union has one detail for each type that it could have been."""
    first, where = details[0], shortened(where)
    context = first.get("ctx", {})
    if first["type"] == "extra_forbidden":
        known = sorted({name for model in _follow(first["loc"][:-1], root)[1] for name in model.model_fields})
        key = str(first["loc"][-1])
        near = _nearest_key(where, key[:LONGEST_SHOWN], known, root)
        hint = f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}"
        return f"unknown key '{where}'; {hint}"
    if first["type"] == "missing":
        described = [model.model_fields[first["loc"][-1]].description for model in _follow(first["loc"][:-1], root)[1]]
        return f"'{where}' is required and missing" + (f": {described[0].rstrip('.')}" if any(described) else "")
    if first["type"] == "union_tag_not_found":
        return f"'{where}.{context['discriminator'].strip(chr(39))}' is required and missing"
    if first["type"] == "model_type":
        fields = [name for model in _follow(first["loc"], root)[1] for name in model.model_fields]
        return (
            f"'{where}' is a section, and its fields are set one by one, such as {where}.{fields[0]}. "
            f"Received: {shortened(json.dumps(first.get('input'), default=str))}"
        )
    messages = [_in_our_words(detail["msg"]) for detail in details]
    messages = [shortened(message.replace("a valid tuple", "a list, [...]")) for message in messages]
    received = first.get("input")
    is_section = isinstance(received, dict | BaseModel)
    shown = "" if is_section else f" Received: {shortened(json.dumps(received, default=str))}"
    of_field = f"'{where}': " if where else ""  # a contract between fields names them itself
    return f"{of_field}{', or '.join(messages)}.{shown}"


def _in_our_words(message: str) -> str:
    """A message of pydantic's in the style of our own."""
    message = message.removeprefix("Value error, ").partition(", unable to parse")[0].rstrip(".")
    return message.replace("Input should be", "must be")


def _nearest_key(where: str, key: str, known: list[str], root: type[BaseModel]) -> str | None:
    """The field that an unknown key may have meant: a similar one in its section, else one of that name elsewhere."""
    parent = where.removesuffix(key)
    elsewhere = {path.rpartition(".")[2]: path for path in reversed(list(_paths(root)))}
    for names, cutoff in ((known, 0.75), (list(elsewhere), 0.75), (known, 0.5)):
        near = difflib.get_close_matches(key, names, n=1, cutoff=cutoff)
        if near:
            return f"{parent}{near[0]}" if names is known else elsewhere[near[0]]
    return None


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all fields below a model."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for below in _models_in(field.annotation):
            yield from _paths(below, f"{prefix}{name}.")


def _follow(location: tuple[Any, ...], root: type[BaseModel]) -> tuple[list[str], list[Any]]:
    """Follow a pydantic error location: return its path as in the file, and the models at that path.

    Pydantic adds the chosen kind and type of unions, which no file has: ("split", "flights", "val") is split.val.
    """
    path: list[str] = []
    models: list[Any] = [root]
    for part in location:
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        tagged = [m for m in models if part in [f.default for k, f in m.model_fields.items() if k == "kind"]]
        if not fields and tagged:
            models = tagged
        elif models or isinstance(part, int):
            path.append(str(part))
            models = [found for field in fields for found in _models_in(field)] if fields else models
    return path, models


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
