"""From a result back to what it was made from, by the records that lie beside the results.

A record names its inputs with their hashes; beside most of these lies a record again. So a walk leads from
metrics.json over predictions and weights to synthetic sets, shards, manifests and data.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gen4det.core.provenance import file_hash

SMALL = 64 * 2**20
"""Files up to this many bytes are hashed again, to see whether they are still what was read."""


@dataclass(frozen=True)
class Link:
    """One result on the way back, and what its record says of it."""

    path: str
    facts: dict = field(repr=False)

    @property
    def stage(self) -> str:
        """The stage that made it, e.g. "train"."""
        return self.facts["code"]["modules"][0].rpartition(".")[2]

    @property
    def code(self) -> str:
        """Hash of the code it was made by."""
        return self.facts["code"]["hash"]

    @property
    def inputs(self) -> dict[str, str]:
        """Files it was made from, and their SHA-256."""
        return self.facts["inputs"]


class Pedigree:
    """Records of results, each read once, and each file hashed once.

    Args:
        results: the folder of the results, if it may have been moved since: paths in records are looked for
            in it by their last parts. None: they are where the records say.
    """

    def __init__(self, results: Path | None = None) -> None:
        self._results = results
        self._records: dict[str, dict | None] = {}
        self._hashes: dict[str, str | None] = {}

    def record(self, path: str | Path) -> dict | None:
        """The record beside a result; None where there is none, or none that can be read."""
        key = str(path)
        if key not in self._records:
            self._records[key] = next(filter(None, map(_read, _places(Path(path)))), None)
        return self._records[key]

    def link(self, path: str | Path) -> Link | None:
        """A result with its record; None where there is none."""
        facts = self.record(path)
        return Link(str(path), facts) if facts else None

    def way_back(self, path: str | Path) -> list[Link]:
        """A result and all it was made from, nearest first, each once; without what has no record."""
        found: dict[str, Link] = {}
        queue = [str(path)]
        while queue:
            name = queue.pop(0)
            if name not in found and (link := self.link(name)):
                found[name] = link
                queue += [str(place) for path in link.inputs if (place := self.place(path))]
        return list(found.values())

    def place(self, path: str) -> Path | None:
        """Where a file that a record names lies now; None: not in the folder of the results."""
        if self._results is None:
            return Path(path)
        parts = Path(path).parts
        places = (
            self._results.joinpath(*parts[start:]) for start in range(Path(path).is_absolute(), len(parts))
        )
        return next((place for place in places if place.exists()), None)

    def state(self, path: str, recorded: str) -> str:
        """Whether a file is still what a record says was read, in words."""
        if not Path(path).is_file():
            return "not here"
        if path not in self._hashes:
            small = Path(path).stat().st_size <= SMALL
            self._hashes[path] = file_hash(path) if small else None
        if self._hashes[path] is None:
            return "too large to compare here"
        return "unchanged since" if self._hashes[path] == recorded else "CHANGED since"


def _places(path: Path) -> Iterator[Path]:
    yield path.with_name(f"{path.name}.record.json")
    yield path.with_name(f"{path.stem}.record.json")  # of a shard: images and labels have one record


def _read(path: Path) -> dict | None:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    known = isinstance(facts, dict) and {"code", "inputs", "settings"} <= facts.keys()
    return facts if known else None
