"""What was found in files: which dataset is what, by which clock, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cloudml_tf.data.discovery import clocks, rules
from cloudml_tf.data.discovery.datasets import FileContent
from cloudml_tf.data.discovery.rules import Choice
from cloudml_tf.data.readers import times

MOST_SEEN = 6  # reasons that a message lists


@dataclass
class Mapping:
    """What was found in the files, and what is missing."""

    sections: dict[str, dict[str, Any]] = field(default_factory=lambda: {"camera": {}, "lidar": {}, "navigation": {}})
    choices: list[Choice] = field(default_factory=list)
    clocks: dict[str, str] = field(default_factory=dict)  # description of each section's time unit
    missing: list[tuple[str, str]] = field(default_factory=list)  # (setting, what to do)
    notes: list[str] = field(default_factory=list)
    files: dict[str, list[FileContent]] = field(default_factory=dict)  # by role
    sun_angles: bool = False

    def take(self, choice: Choice) -> None:
        """Use a dataset for the field of the choice."""
        section, name = choice.field.split(".")
        self.sections[section][name] = choice.found.name
        self.choices.append(choice)

    def lack(self, setting: str, remedy: str) -> None:
        """Note a field without a matching dataset."""
        self.missing.append((setting, remedy))

    def note(self, text: str) -> None:
        """Note what a person should know of a choice."""
        self.notes.append(text)

    def datasets(self, section: str) -> set[str]:
        """The datasets that a file of this section must have."""
        return {c.found.name for c in self.choices if c.field.startswith(section)}


def times_of(mapping: Mapping, role: str, path: Path) -> np.ndarray:
    """The times of a file, in s; none where its section has no dataset of times, or their unit is unknown."""
    settings = {k: v for k, v in mapping.sections[role].items() if k.startswith("time") or k == "year"}
    return clocks.seconds(path, role, settings) if settings.get("time") else np.zeros(0)


def rows_of(content: FileContent, mapping: Mapping) -> int:
    """The number of rows of a navigation file."""
    section = mapping.sections["navigation"]
    return content.rows(str(section.get("solar_zenith") or section["latitude"]))


def frames_of(content: FileContent, mapping: Mapping) -> int:
    """The number of frames of a camera file."""
    return content.rows(str(mapping.sections["camera"]["channels"][0]))


def date_of(contents: Sequence[FileContent]) -> str | None:
    """The first date in any file's name, or in an attribute that tells of the measurement."""
    for content in contents:
        named = [value for key, value in content.attributes.items() if clocks.of_the_measurement(key)]
        for text in (content.path.stem, *named):
            if date := times.date_in(text):
                return "{:04d}-{:02d}-{:02d}".format(*date)
    return None


def labels_in(content: FileContent) -> list[Choice]:
    """The label datasets with as many rows as the best of them."""
    found = [choice for rule in rules.LABELS if (choice := rules.best(rule, content.datasets))]
    if not found:
        return []
    count = max(found, key=lambda choice: choice.score).found.shape[0]
    alike = [rules.best(rule, content.datasets, lambda d: d.shape[0] == count) for rule in rules.LABELS]
    return [choice for choice in alike if choice]


def with_seen(text: str, seen: Sequence[str]) -> str:
    """A text with what was seen instead."""
    return f"{text}; seen: {'; '.join(seen[:MOST_SEEN])}" if seen else text
