"""The configurations that come with the package, by their bare names: `cloudml train tier1`."""

from pathlib import Path

# In a wheel they lie beside the package's modules (setup.py puts them there), in a clone beside the package.
PLACES = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
NO_CONFIGURATION = ("schema",)


def names() -> list[str]:
    """What they are called."""
    return [path.stem for path in sorted(_folder().glob("*.json")) if path.stem not in NO_CONFIGURATION]


def located(path: str | Path) -> Path:
    """The path itself; or a shipped configuration's file, where it is the bare name of one and not one's own file."""
    path = Path(path)
    if path.parent == Path() and not path.suffix and not path.exists() and path.name in names():
        return _folder() / f"{path.name}.json"
    return path


def _folder() -> Path:
    return next((place for place in PLACES if (place / "tier1.json").is_file()), PLACES[0])
