"""Manifests: what an engine is going to generate, one JSON object per line and image.

Beside a manifest lies its index, <manifest>.index, so that a shard reads its own lines alone: one line of
JSON, {"bytes", "sha256", "batches"} of the manifest, then four little-endian int64 for each batch: number,
where its lines begin in the manifest, how many bytes they are, and their CRC-32. An index that is missing, or
of other lines, is not used.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write, file_hash


def write_manifest(path: str | Path, rows: list[dict]) -> None:
    """Write rows atomically, keys sorted, so that equal plans give equal bytes; and the index, before them.

    Raises:
        ValueError: the rows do not keep to the layout of `check_rows`.
    """
    check_rows(rows)
    digest, start, batches = hashlib.sha256(), 0, []
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as stream:
            for batch, members in groupby(rows, key=lambda row: row["batch"]):
                lines = "".join(
                    json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in members
                ).encode()
                stream.write(lines)
                digest.update(lines)
                batches.append((batch, start, len(lines), zlib.crc32(lines)))
                start += len(lines)
        with atomic_write(index_of(path)) as index, open(index, "wb") as stream:
            about = {"bytes": start, "sha256": digest.hexdigest(), "batches": len(batches)}
            stream.write(json.dumps(about).encode() + b"\n")
            stream.write(np.array(batches, dtype="<i8").tobytes())


def index_of(path: str | Path) -> Path:
    """The index of a manifest."""
    return Path(f"{path}.index")


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


def read_batches(path: str | Path, shard: int, shards: int) -> tuple[dict[int, list[dict]], str]:
    """The rows of the batches a shard draws, by batch, and the SHA-256 of the whole manifest.

    With an index only these rows are read, however many others there are; without one every line is.

    Raises:
        InputError: see `stream_manifest`.
    """
    indexed = _indexed_batches(Path(path), shard, shards)
    if indexed is not None:
        return indexed
    return dict(batches_of_shard(stream_manifest(path), shard, shards)), file_hash(path)


def _indexed_batches(path: Path, shard: int, shards: int) -> tuple[dict[int, list[dict]], str] | None:
    """What `read_batches` gives; None where no index is there, or it is not of these lines."""
    try:
        with open(index_of(path), "rb") as stream:
            about = json.loads(stream.readline())
            entries = np.frombuffer(stream.read(), dtype="<i8").reshape(-1, 4)
        if path.stat().st_size != about["bytes"] or len(entries) != about["batches"]:
            return None
        batches = {}
        with open(path, "rb") as stream:
            for batch, start, length, checksum in entries[entries[:, 0] % shards == shard].tolist():
                stream.seek(start)
                lines = stream.read(length)
                if zlib.crc32(lines) != checksum:
                    return None
                batches[batch] = [json.loads(line) for line in lines.splitlines()]
        return batches, about["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # no index, or cut short: the manifest itself decides
