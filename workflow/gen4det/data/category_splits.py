"""Base and novel categories: from the annotations, or from a file of resources/splits."""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings, parse_settings
from gen4det.core.yaml_files import read_yaml
from gen4det.data.category_names import same_word

SPLITS = ("base", "novel")


class CategorySplit(Settings):
    """A file of resources/splits: category ids by name."""

    base: dict[str, int]
    """Categories with labels in training."""
    novel: dict[str, int]
    """Categories without."""


def with_splits(categories: list[dict], path: str | Path) -> list[dict]:
    """Categories with "split": base, novel, or null for those that the file does not name.

    Matched by name; ids in the file are those of its source, for reference.

    Raises:
        InputError: the file is unusable, puts a name into both, or names a category that is not there.
    """
    split = parse_settings(CategorySplit, read_yaml(Path(path)), source=path)
    found: dict[str, str] = {}
    for kind in SPLITS:
        for name in getattr(split, kind):
            if same_word(name) in found:
                raise InputError(f"{path}: {name!r} stands there twice")
            found[same_word(name)] = kind
    there = {same_word(category["name"]) for category in categories}
    for kind in SPLITS:
        for name in getattr(split, kind):
            if same_word(name) not in there:
                raise InputError(f"{path}: {kind}: {name!r} is not a category of the data set")
    return [category | {"split": found.get(same_word(category["name"]))} for category in categories]
