"""The Hugging Face hub: which files a model has, at which commit, with which checksums.

Only its documented addresses are used (huggingface.co/docs/hub/api): one list of files, then plain downloads.
HF_ENDPOINT names another server, as for the hub's own client.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gen4det.core.errors import InputError
from gen4det.data.download import fetch_json

SAFE_PATH = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """One file of a model at one commit."""

    path: str
    """Relative to the model."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """Checksum (hex), where the hub tells: of large files."""
    blob: str | None = None
    """Git's name (hex) of the content, of all other files."""

    def matches(self, path: Path) -> bool:
        """Whether a file on disk has this content."""
        if path.stat().st_size != self.size:
            return False
        with open(path, "rb") as stream:
            if self.sha256 is not None:
                return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256
            return hashlib.sha1(b"blob %d\0" % self.size + stream.read()).hexdigest() == self.blob


def endpoint() -> str:
    """Address of the hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def list_files(hub: str, revision: str | None, *, pause: float = 1.0) -> tuple[str, list[HubFile]]:
    """Commit and files of a model.

    Args:
        hub: owner/name.
        revision: commit; None: the newest.
        pause: see `download.probe`.

    Raises:
        InputError: no such model or commit, no permission, or not an answer of the hub.
    """
    url = f"{endpoint()}/api/models/{hub}/revision/{revision or 'main'}?blobs=true"
    answer = fetch_json(url, pause=pause)
    try:
        commit = answer["sha"]
        files = [_file(entry) for entry in answer["siblings"] if SAFE_PATH.fullmatch(entry["rfilename"])]
    except (KeyError, TypeError) as error:
        raise InputError(f"{url}: not the hub's list of files: {error!r}") from error
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or revision not in (None, commit):
        raise InputError(
            f"{url}: the hub answers with commit {commit!r}, asked for {revision or 'the newest'}"
        )
    return commit, files


def file_url(hub: str, commit: str, path: str) -> str:
    """Where a file is downloaded from."""
    return f"{endpoint()}/{hub}/resolve/{commit}/{quote(path)}"


def _file(entry: dict) -> HubFile:
    large = entry.get("lfs") or {}
    return HubFile(entry["rfilename"], entry["size"], large.get("sha256"), entry["blobId"])
