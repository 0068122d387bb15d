"""What the check of a user's images has read: a file beside the descriptor, for comparison in later runs.

Nothing heavy is imported here: the Snakefile reads these files.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.provenance import file_hash, write_json
from gen4det.data.sources.found import files_below
from gen4det.data.suffixes import ANNOTATION_SUFFIXES, IMAGE_SUFFIXES

UNSEEN = ""
"""Token of pictures that were never checked."""
FOLDER = "folder"
"""In place of a split: all files of a folder of images and annotations."""


def seen_file(descriptor: str | Path, split: str) -> Path:
    """Where it stands: `pictures_<split>.json` beside dataset.json."""
    return Path(descriptor).with_name(f"pictures_{split}.json")


def own_files(root: Path) -> Iterator[Path]:
    """Images, annotations and zips below a folder, hidden ones left out."""
    return files_below(root, IMAGE_SUFFIXES | ANNOTATION_SUFFIXES | {".zip"})


def write_seen(path: Path, root: Path, files: Iterable[Path], token: str, hashes: dict[Path, str]) -> None:
    """Write size, time and SHA-256 of every file, by its path below `root`.

    Args:
        files: image files, or zips of them; `root` itself, if it is a zip.
        token: what the check was told to have changed.
        hashes: SHA-256 of files that were read already.
    """
    seen = {}
    for file in sorted(set(files)):
        status = os.stat(file)
        digest = hashes.get(file) or file_hash(file)
        seen[os.path.relpath(file, root)] = [status.st_size, status.st_mtime_ns, digest]
    write_json(path, {"token": token, "files": seen})


def read_seen(path: Path) -> dict | None:
    """{"token", "files": {path below the root: [bytes, time in ns, SHA-256]}}; None: never checked."""
    try:
        seen = read_json(path, "the pictures that were checked")
    except InputError:
        return None
    return seen if seen.keys() == {"token", "files"} else None
