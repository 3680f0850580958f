"""What a setting is, from the models of the configuration: `cloudml config explain KEY`, and docs/reference."""

import json
import textwrap
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cloudml_tf.config.mistakes import models_at, models_in, nearest_key, shortened
from cloudml_tf.config.renamed import RENAMED
from cloudml_tf.config.schema import Config
from cloudml_tf.utils.errors import ConfigError

LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}
WIDTH = 79


def describe(key: str, root: type[BaseModel] = Config) -> dict[str, Any]:
    """What is known of a setting or a section by its dotted path; "" is the whole configuration.

    Raises `ConfigError` for one that does not exist, with the nearest that does.
    """
    path = tuple(RENAMED.get(key, key).split(".")) if key else ()
    for end in range(1, len(path) + 1):
        models = models_at(path[: end - 1], root)
        known = sorted({name for model in models for name in model.model_fields})
        if path[end - 1] not in known:
            near = nearest_key(".".join(path[:end]), path[end - 1], known, root)
            hint = f"did you mean '{near}'?" if near else f"known here: {', '.join(known) or 'none'}."
            raise ConfigError(f"no setting '{shortened('.'.join(path[:end]))}'; {hint}")
    *parents, last = path or ("",)
    fields = [(m, m.model_fields[last]) for m in models_at(tuple(parents), root) if last in m.model_fields]
    found: dict[str, Any] = {"key": ".".join(path)}
    if fields:
        found["fields"] = [_field(model, field) for model, field in fields]
    sections = models_at(path, root)
    if sections:
        found["sections"] = [_section(model) for model in sections]
    return found


def _field(model: type[BaseModel], field: Any) -> dict[str, Any]:
    """Meaning, type, limits and default of a setting; `of` is the kind of section that has it, where it has kinds."""
    kind = model.model_fields.get("kind")
    return {
        "of": kind.default if kind is not None else None,
        "meaning": field.description or "",
        "type": type_name(field.annotation).replace("`", ""),
        "limits": ", ".join(limits_of(field.metadata)),
        "default": default_of(field).strip("*`") or None,
    }


def _section(model: type[BaseModel]) -> dict[str, Any]:
    """What a section is, and the meaning of each of its settings."""
    about = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    settings = {name: _meaning(field) for name, field in model.model_fields.items()}
    return {"name": model.__name__, "meaning": about, "settings": settings}


def _meaning(field: Any) -> str:
    """The description of a setting; of a section, what it is."""
    inside = models_in(field.annotation)
    about = (inside[0].__doc__ or "") if len(inside) == 1 else ""
    told = str(field.description or " ".join(about.split("\n\n")[0].split()))
    return told or type_name(field.annotation).replace("`", "")


def in_words(found: dict[str, Any]) -> str:
    """What `describe` found, for a terminal of 80 columns."""
    lines = [found["key"] or "the whole configuration"]
    for field in found.get("fields", []):
        lines += _wrapped(f"of kind {field['of']}" if field["of"] else "", "  ")
        lines += _wrapped(field["meaning"], "  ")
        if "sections" not in found:
            lines += [line for name in ("type", "limits", "default") for line in _row(name, field[name], 9)]
    for section in found.get("sections", []):
        lines += ["", *_wrapped(section["meaning"], "  ")]
        width = max(map(len, section["settings"])) + 2
        lines += [line for name, meaning in section["settings"].items() for line in _row(name, meaning, width)]
    if "sections" in found:
        place = f"{found['key']}.KEY" if found["key"] else "KEY"
        lines += ["", f"more of one of them: cloudml config explain {place}"]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _row(name: str, text: str | None, width: int) -> list[str]:
    """A name and what belongs to it, in a column of its own."""
    first = f"  {name:<{width}}"
    return textwrap.wrap(text or "", WIDTH, initial_indent=first, subsequent_indent=" " * len(first))


def type_name(annotation: Any, section: Callable[[type], str] = lambda model: model.__name__) -> str:
    """A type as a reader of JSON thinks of it: "number", "text", "list of whole numbers", '"a" or "b"'.

    `section` names a model.
    """
    simple: dict[Any, str] = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        Any: "any value",
    }
    if annotation in simple:
        return simple[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        limits = ", ".join(limits_of(parts[1:]))
        return type_name(parts[0], section) + (f" ({limits})" if limits else "")
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(part)}`" for part in parts)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(part, section) for part in parts)
    if origin is tuple and parts[-1] is Ellipsis:
        return f"list of {type_name(parts[0], section)}"
    if origin is tuple:
        return f"[{', '.join(type_name(part, section) for part in parts)}]"
    if origin is dict:
        return f"object of {type_name(parts[1], section)}"
    return section(annotation)


def limits_of(metadata: Iterable[Any]) -> list[str]:
    """Bounds and patterns of a field, as signs."""
    found = []
    for item in metadata:
        for constraint in getattr(item, "metadata", None) or [item]:
            for name, sign in LIMITS.items():
                value = getattr(constraint, name, None)
                if value is not None:
                    shown = f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:g}"
                    found.append(f"{sign} {shown}")
    return found


def default_of(field: Any) -> str:
    """The default as JSON; "required" where there is none, nothing for a section of its own."""
    if field.default is PydanticUndefined:
        return "**required**"
    if isinstance(field.default, BaseModel):
        return ""
    if isinstance(field.default, tuple) and field.default and isinstance(field.default[0], BaseModel):
        return f"{len(field.default)} of them"
    return f"`{json.dumps(field.default, default=list, ensure_ascii=False)}`"
