"""Load, override, print and describe configurations: `cloudml config print|schema`.

config = load_config("configs/tier1.json", {"training.max_epochs": 5})
"""

import contextlib
import json
import os
import re
import tempfile
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cloudml_tf.config.mistakes import LONGEST_SHOWN, as_lines, models_at, shortened
from cloudml_tf.config.renamed import RENAMED, rename, warn_of_old_names
from cloudml_tf.config.schema import Config as Config
from cloudml_tf.config.shipped import located
from cloudml_tf.utils import plain_json
from cloudml_tf.utils.errors import ConfigError, RunError
from cloudml_tf.utils.redaction import check_no_secret
from cloudml_tf.utils.suggest import did_you_mean

Model = typing.TypeVar("Model", bound=BaseModel)
LONGEST_PATH = 4096
HOW_TO_GET = {
    "configuration": "The command `init` writes one.",
    "search": "`cloudml search --help` shows a minimal one.",
    "grid": "`cloudml ablate --help` shows a minimal one.",
}
SCHEMA_PATH = Path("configs/schema.json")


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and validate a JSON file, or the shipped one of a bare name such as "tier1".

    `overrides` maps dotted paths to values, e.g. {"training.max_epochs": 5}.

    Raises `ConfigError`, naming the file, each bad field by its path, and the nearest known name of an unknown key.
    """
    path = located(path)
    content = read_content(path)
    if "base" in content and "split" not in content:
        command = "ablate" if "rows" in content else "search"
        raise ConfigError(f"{path}: is not the configuration of one training. Run it with `cloudml {command} {path}`.")
    return resolve(content, overrides, str(path))


def resolve(content: dict[str, Any], overrides: Mapping[str, Any] | None, source: str) -> Config:
    """The configuration of a dictionary, which takes up the overrides; `source` names it in errors."""
    overrides = overrides or {}
    before = json.loads(json.dumps(content)) if overrides else content
    for key, value in sorted(overrides.items(), key=lambda pair: not pair[0].endswith(".kind")):  # kinds come first
        dropped = set_by_path(content, key, value)
        if dropped:
            from cloudml_tf.utils.console import Console

            Console(machine=True).warn(f"--set {key}={value} replaces the section: {', '.join(dropped)} are left out")
    check_no_secret(json.dumps(content, ensure_ascii=False), source)
    return validated(Config, content, source, overrides, before)


def read_content(path: str | Path, kind: str = "configuration") -> dict[str, Any]:
    """The JSON object of a configuration file, not yet validated. Raises `ConfigError` where it is not one.

    `kind` is what the file is for: a configuration, a search or a grid.
    """
    path = Path(path)
    if path.is_dir():
        usual = path / "config.json"
        inside = [usual] if usual.is_file() and kind == "configuration" else sorted(path.glob("*.json"))
        hint = HOW_TO_GET[kind] + (" `init --from FILE…` proposes one for your flights." * (kind == "configuration"))
        hint = f"Did you mean {inside[0]}?" if len(inside) == 1 else hint
        raise ConfigError(f"{path}: is a folder; give a {kind}, which is a JSON file. {hint}")
    try:
        content = plain_json.read(path)
    except FileNotFoundError:
        hint = did_you_mean(path, ".json") or f" {HOW_TO_GET[kind]}"
        raise ConfigError(f"{path}: no such {kind} file.{hint}") from None
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


def validated(
    model: type[Model],
    content: Mapping[str, Any],
    source: str,
    overrides: Iterable[str] = (),
    before: Mapping[str, Any] | None = None,
) -> Model:
    """A dictionary as one of the project's models. Raises `ConfigError`.

    Args:
        model: the model.
        content: the dictionary.
        source: what the error names, such as a file.
        overrides: the paths that `--set` has set in it, which the error names instead where they are the cause.
        before: the dictionary without them.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        good = bool(overrides) and before is not None and _is_valid(model, before)
        raise ConfigError(as_lines(error, model, source, overrides, good)) from None


def _is_valid(model: type[BaseModel], content: Mapping[str, Any]) -> bool:
    try:
        model.model_validate(content)
    except ValidationError:
        return False
    return True


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


def set_by_path(content: dict[str, Any], key: str, value: Any, root: type[BaseModel] = Config) -> list[str]:
    """Set the value at a dotted path, in place; missing sections are created, and old names replaced.

    Another kind of a section that has kinds replaces it: returns the fields that are left out, as the new kind does not
    have them.
    """
    rename(content)
    *parents, last = RENAMED.get(key, key).split(".")
    section = content
    for name in parents:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {shortened(key)}: '{shortened(name)}' is a value, not a section.")
    dropped = _of_another_kind(section, value, models_at(tuple(parents), root)) if last == "kind" else []
    for name in dropped:
        del section[name]
    section[last] = value
    return dropped


def _of_another_kind(section: Mapping[str, Any], kind: Any, models: list[type[BaseModel]]) -> list[str]:
    """The fields of a section that do not fit another kind of it: it has none of that name and type."""
    fields = {
        model.model_fields["kind"].default: model.model_fields for model in models if "kind" in model.model_fields
    }
    old = section.get("kind")
    if kind == old or not isinstance(kind, str | None) or not isinstance(old, str) or not {kind, old} <= fields.keys():
        return []
    types = [{name: field.annotation for name, field in fields[one].items()} for one in (old, kind)]
    return [name for name in section if name != "kind" and types[0].get(name, ...) != types[1].get(name)]
