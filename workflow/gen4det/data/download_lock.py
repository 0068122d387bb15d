"""Checksums and commits of first downloads, recorded in a file and enforced from then on."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import write_json

log = logging.getLogger(__name__)

LOCK_FILE = "downloads.lock.json"


def recorded(folder: Path, name: str, **publisher: str) -> dict:
    """What is recorded of a download, empty if nothing is or if it was published elsewhere then.

    Args:
        publisher: who published it, e.g. url=...

    Raises:
        InputError: the lock file is not what we write.
    """
    facts = _read(folder).get(name, {})
    return facts if all(facts.get(key) == value for key, value in publisher.items()) else {}


def record(folder: Path, name: str, facts: dict) -> None:
    """Record facts of a download in place of earlier ones. To be called inside `exclusive`."""
    write_json(folder / LOCK_FILE, _read(folder) | {name: facts}, indent=1)


def _read(folder: Path) -> dict:
    path = folder / LOCK_FILE
    if not path.exists():
        return {}
    facts = read_json(path, "the checksums of downloads by name")
    if not all(isinstance(entry, dict) for entry in facts.values()):
        raise InputError(f"{path}: not the checksums of downloads by name")
    return facts


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Two jobs that want the same download take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # a file system without locks
        log.warning("%s: cannot be locked (%s); let no two downloads run at once", folder, error)
    try:
        yield
    finally:
        lock.release()
