"""Manifests: what an engine is going to generate, one JSON object per line and image."""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write


def write_manifest(path: str | Path, rows: list[dict]) -> None:
    """Write rows atomically, keys sorted, so that equal plans give equal bytes.

    Raises:
        ValueError: the rows do not keep to the layout of `check_rows`.
    """
    check_rows(rows)
    with atomic_write(path) as temporary, open(temporary, "w") as stream:
        for row in rows:
            stream.write(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n")


def read_manifest(path: str | Path) -> list[dict]:
    """All rows of a manifest; see `stream_manifest`."""
    return list(stream_manifest(path))


def stream_manifest(path: str | Path) -> Iterator[dict]:
    """Rows of a manifest, one at a time: of ten million rows a shard keeps only its own.

    Raises:
        InputError: missing file, a line that is not JSON, or rows out of order.
    """
    path = Path(path)
    try:
        with open(path) as stream:
            yield from checked_rows(_parsed(stream, path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _parsed(lines: Iterable[str], path: Path) -> Iterator[dict]:
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {number}: not JSON, or cut short: {error.msg}") from None


def check_rows(rows: list[dict]) -> None:
    """Refuse rows that `checked_rows` does not let through.

    Raises:
        ValueError: one line for the first of them.
    """
    for _ in checked_rows(rows):
        pass


def checked_rows(rows: Iterable[dict]) -> Iterator[dict]:
    """Rows with "index" (their position), "batch" (not decreasing from 0 on) and "seed" in [0, 2**63).

    Raises:
        ValueError: one line for the first row that has them not; no row at all.
    """
    position, previous = -1, 0
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"row {position}: expected an object")
        for key in ("index", "batch", "seed"):
            if type(row.get(key)) is not int:
                raise ValueError(f"row {position}: {key} must be a whole number (got {row.get(key)!r})")
        if row["index"] != position:
            raise ValueError(f"row {position}: index {row['index']}; rows are missing or out of order")
        if row["batch"] < previous:
            raise ValueError(f"row {position}: batch {row['batch']} after batch {previous}")
        if not 0 <= row["seed"] < 2**63:
            raise ValueError(f"row {position}: seed {row['seed']} is not in [0, 2**63)")
        previous = row["batch"]
        yield row
    if position < 0:
        raise ValueError("no rows: there is nothing to draw")


def batches_of_shard(rows: Iterable[dict], shard: int, shards: int) -> Iterator[tuple[int, list[dict]]]:
    """(number, rows) of the batches a shard draws: every `shards`-th one. Batches are never split."""
    for batch, members in groupby(rows, key=lambda row: row["batch"]):
        if batch % shards == shard:
            yield batch, list(members)
