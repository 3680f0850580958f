"""Find latitude and longitude beside the sun's angles: optional, so a file with the angles is kept without them."""

from collections.abc import Sequence

from cloudml_tf.data.discovery import rules
from cloudml_tf.data.discovery.datasets import FileContent, Found
from cloudml_tf.data.discovery.rules import Choice


def positions(contents: Sequence[FileContent], needed: set[str], count: int) -> tuple[list[Choice], str]:
    """Both positions of the first file, or none; and a note where another file with the angles lacks them.

    Args:
        contents: files with angles, the chosen one first.
        needed: the datasets of the angles.
        count: rows of the first file.
    """

    def fits(found: Found) -> bool:
        return found.shape[0] == count

    both = [choice for rule in rules.POSITION if (choice := rules.best(rule, contents[0].datasets, fits))]
    if len(both) < len(rules.POSITION):
        return [], ""
    wanted = {choice.found.name for choice in both}
    for content in contents:
        names = {found.name for found in content.datasets}
        if needed <= names and not wanted <= names:
            quoted = " and ".join(f"'{choice.found.name}'" for choice in both)
            return [], f"{content.path} has no {quoted}: positions are left out"
    return both, ""
