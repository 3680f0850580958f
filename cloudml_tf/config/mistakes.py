"""What is wrong with a configuration, in words: the field, the rule, what was received, and what may be meant."""

import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from cloudml_tf.config.schema import Config

MOST_LISTED, LONGEST_SHOWN = 20, 200  # mistakes of one file, and characters of each value that an error shows
UNLIMITED = ("minimum", "maximum", "clip")  # null is no limit; of other fields the description says what it is
SYNONYMS = {  # what others call a field -> its name, in the section of the mistake or else at this path
    "lambda": ("loss.weight",),
    "lam": ("loss.weight",),
    "lr": ("training.learning_rate",),
    "rate": ("training.learning_rate",),
    "epochs": ("training.max_epochs",),
    "num_epochs": ("training.max_epochs",),
    "n_epochs": ("training.max_epochs",),
    "batch": ("training.batch_size",),
    "patience": ("training.early_stopping_patience",),
    "warmup": ("training.warmup_epochs",),
    "decay": ("training.weight_decay",),
    "filters": ("model.widths",),
    "min": ("target.minimum",),
    "max": ("target.maximum",),
    "quantity": ("target.name",),
    "label": ("target.name",),
    "bands": ("data.camera.channels",),
    "channels": ("data.camera.channels",),
    "folder": ("data.path",),
    "directory": ("data.path",),
    "frames": ("temporal_frames", "frames_per_flight"),
    "flights": ("flight_count",),
}


def as_lines(
    error: ValidationError, root: type[BaseModel], source: str, overrides: Iterable[str] = (), good: bool = False
) -> str:
    """All mistakes as one text. Each names the `--set` that causes it, or `source`, such as a file.

    `good` says that `source` has no mistake without the overrides.
    """
    by_source: dict[str, list[str]] = {}
    for where, text in explain(error, root).items():
        cause = _cause(where, list(overrides), good) or source
        told = text.removeprefix(f"'{cause.removeprefix('--set ').removeprefix('--')}': ")
        by_source.setdefault(cause, []).append(told)
    shown = [f"{cause}: " + "\n  ".join(texts) for cause, texts in by_source.items()]
    lines = "\n  ".join(shown).split("\n")
    more = [f"  and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
    return "\n".join([*lines[:MOST_LISTED], *more])


def _cause(where: str, overrides: list[str], good: bool) -> str:
    """The options that set the field of a mistake, or something in or around it; all where `good`; or ""."""
    near = [key for key in overrides if f"{key}.".startswith(f"{where}.") or f"{where}.".startswith(f"{key}.")]
    chosen = near if near and where else overrides if good else []
    return ", ".join(_option(key) for key in chosen)


def _option(key: str) -> str:
    return "--seed" if key == "seed" else f"--set {shortened(key)}"


def explain(error: ValidationError, root: type[BaseModel] = Config) -> dict[str, str]:
    """What is wrong with each field of a dictionary that `root` refused, by dotted path; "" is the whole file."""
    by_field: dict[str, list[Any]] = {}
    details = error.errors()
    for detail in details:
        # A list that lost its refused items is then too short: no mistake of its own.
        inside = [one for one in details if len(one["loc"]) > len(detail["loc"])]
        short = detail["type"] == "too_short"
        if not (short and any(one["loc"][: len(detail["loc"])] == detail["loc"] for one in inside)):
            by_field.setdefault(".".join(_follow(detail["loc"], root)[0]), []).append(detail)
    return {where: _explain(where, details, root) for where, details in by_field.items()}


def shortened(text: str) -> str:
    """Cut a text to the length that an error shows."""
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def _explain(where: str, details: list[Any], root: type[BaseModel]) -> str:
    """One line about a field. A union has one detail for each type that it could have been."""
    first, where = details[0], shortened(where)
    context = first.get("ctx", {})
    if first["type"] == "extra_forbidden":
        known = sorted({name for model in _follow(first["loc"][:-1], root)[1] for name in model.model_fields})
        key = str(first["loc"][-1])
        kinds = _kinds_with(first["loc"], root)
        if kinds:
            return f"unknown key '{where}'; it belongs to {' and '.join(kinds)}"
        near = nearest_key(where, key[:LONGEST_SHOWN], known, root)
        hint = f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}"
        return f"unknown key '{where}'; {hint}"
    if first["type"] == "missing":
        described = [model.model_fields[first["loc"][-1]].description for model in _follow(first["loc"][:-1], root)[1]]
        return f"'{where}' is required and missing" + (f": {described[0].rstrip('.')}" if any(described) else "")
    if first["type"].startswith("union_tag_"):
        return _of_kind(f"{where}.{context['discriminator'].strip(chr(39))}", first)
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
    return f"{of_field}{', or '.join(messages)}{_or_null(first, root)}.{shown}"


def _of_kind(key: str, detail: Any) -> str:
    """A line about the kind of a section, which is missing or unknown."""
    if detail["type"] == "union_tag_not_found":
        return f"'{key}' is required and missing"
    kinds = detail["ctx"]["expected_tags"].rsplit(", ", 1)
    return f"'{key}': must be {' or '.join(kinds)}. Received: {shortened(json.dumps(detail['ctx']['tag']))}"


def _or_null(detail: Any, root: type[BaseModel]) -> str:
    """That null is allowed too, where it is, and a value of another type or size was given."""
    location = detail["loc"]
    while location and len(_follow(location[:-1], root)[0]) == len(_follow(location, root)[0]):
        location = location[:-1]  # pydantic's names of types
    models = _follow(location[:-1], root)[1] if location else []
    fields = [model.model_fields[location[-1]] for model in models if location[-1] in model.model_fields]
    if detail["type"] == "value_error" or not any(type(None) in typing.get_args(one.annotation) for one in fields):
        return ""
    return ", or null for no limit" if location[-1] in UNLIMITED else ", or null"


def _in_our_words(message: str) -> str:
    """A message of pydantic's in the style of our own."""
    message = message.removeprefix("Value error, ").partition(", unable to parse")[0].rstrip(".")
    return message.replace("Input should be", "must be")


def nearest_key(where: str, key: str, known: list[str], root: type[BaseModel]) -> str | None:
    """The field that an unknown key may have meant: a similar one of its section, what others call it, one below its
    section, or one of that name elsewhere."""
    parent = where.removesuffix(key)
    every = [path for path in paths_below(root) if path != where]
    below = [path for path in every if path.startswith(parent)]
    return (
        _synonym(key, parent, [parent + name for name in known])
        or _similar(key, [parent + name for name in known], 0.75)
        or _synonym(key, parent, every)
        or _similar(key, below, 0.75)
        or _similar(key, every, 0.85)
        or _similar(key, [parent + name for name in known], 0.5)
    )


def _kinds_with(location: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """The other kinds of a section that have a field which its own kind has not."""
    *parents, name = _follow(location, root)[0]
    models = [one for one in models_at(tuple(parents), root) if {"kind", name} <= one.model_fields.keys()]
    return [f"kind '{one.model_fields['kind'].default}'" for one in models]


def _similar(key: str, paths: list[str], cutoff: float) -> str | None:
    """The first of the paths whose last name is most like a key."""
    by_name = {path.rpartition(".")[2]: path for path in reversed(paths)}
    near = difflib.get_close_matches(key, by_name, n=1, cutoff=cutoff)
    return by_name[near[0]] if near else None


def _synonym(key: str, parent: str, paths: list[str]) -> str | None:
    """The path of the field that others call by a key: in its own section, or where it is known to be."""
    meant = SYNONYMS.get(key.lower(), ())
    here = [parent + path.rpartition(".")[2] for path in meant]
    return next((path for path in [*here, *meant] if path in paths), None)


def paths_below(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all fields below a model."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for below in models_in(field.annotation):
            yield from paths_below(below, f"{prefix}{name}.")


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
            models = [found for field in fields for found in models_in(field)] if fields else models
    return path, models


def models_in(annotation: Any) -> list[Any]:
    """The pydantic models inside a type."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def models_at(path: tuple[str, ...], root: type[BaseModel]) -> list[Any]:
    """The models of the section at a path, one for each of its kinds; none where there is no such section."""
    models: list[Any] = [root]
    for name in path:
        fields = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        models = [found for field in fields for found in models_in(field)]
    return models
