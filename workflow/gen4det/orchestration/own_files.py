"""A cheap check whether one of a user's own images was replaced since the data were checked.

Snakemake does not know them: there may be a hundred thousand. The check leaves behind what it has seen
(`data.pictures_seen`); here every file is compared with that by size and time, and read where these differ.
"""

import os
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import content_hash, file_hash, write_json
from gen4det.data.pictures_seen import UNSEEN, own_files, read_seen


def folder_token(seen_file: Path, root: Path) -> str:
    """A text that changes when an image or an annotation file of a folder is exchanged, deleted or added."""
    token = pictures_token(seen_file, root)
    seen = read_seen(seen_file)
    if seen is None:
        return token
    added = {os.path.relpath(path, root) for path in own_files(root)} - seen["files"].keys()
    return content_hash([token, sorted(added)])[:16] if added else token


def pictures_token(seen_file: Path, root: Path) -> str:
    """A text that changes when a picture is exchanged or deleted, and at no other time.

    Args:
        seen_file: what the check has left behind, if it has been.
        root: folder or zip of the pictures.

    Returns:
        The text the check was given, unless a picture has other contents than it saw. Another time alone is
        noted and no change.
    """
    seen = read_seen(seen_file)
    if seen is None:
        return UNSEEN
    changed, times = {}, {}
    for name, (size, time, digest) in seen["files"].items():
        path = root / name
        try:
            status = os.stat(path)
            if [status.st_size, status.st_mtime_ns] == [size, time]:
                continue
            found = file_hash(path)
        except (OSError, InputError):
            status, found = None, None
        if found != digest:
            changed[name] = found
        elif status:
            times[name] = [status.st_size, status.st_mtime_ns, digest]
    if changed:
        return content_hash([seen["token"], changed])[:16]
    if times and os.access(seen_file.parent, os.W_OK):
        write_json(seen_file, seen | {"files": seen["files"] | times})
    return seen["token"]
