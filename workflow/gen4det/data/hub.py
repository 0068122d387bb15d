"""The Hugging Face hub: which files a model has at which commit, and one of them on disk.

Asking and downloading is the library's: HF_ENDPOINT names a mirror, HF_TOKEN or `hf auth login` opens gated
models, HF_HUB_OFFLINE forbids the network, files in the hub's own cache are copied, lost connections are
taken up again. It compares lengths, not contents: these are compared here.
"""

import contextlib
import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import disable_progress_bars

from gen4det.core.errors import InputError

logging.getLogger("httpx2").setLevel(logging.WARNING)  # or every request is a line

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
        """Whether a file on disk is there and has this content."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with open(path, "rb") as stream:
            if self.sha256 is not None:
                return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256
            return hashlib.sha1(b"blob %d\0" % self.size + stream.read()).hexdigest() == self.blob


def list_files(hub: str, revision: str | None) -> tuple[str, list[HubFile]]:
    """Commit and files of a model.

    Args:
        hub: owner/name.
        revision: commit; None: the newest.

    Raises:
        InputError: no such model or commit, no permission, or not an answer of the hub.
    """
    with _one_line(hub):
        found = HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(
            hub, revision=revision, files_metadata=True
        )
        files = [
            HubFile(file.rfilename, file.size, file.lfs and file.lfs.sha256, file.blob_id)
            for file in found.siblings
            if SAFE_PATH.fullmatch(file.rfilename)
        ]
    if not COMMIT.fullmatch(found.sha or "") or revision not in (None, found.sha):
        raise InputError(
            f"{hub}: the hub answers with commit {found.sha!r}, asked for {revision or 'the newest'}"
        )
    return found.sha, files


def fetch_file(hub: str, commit: str, file: HubFile, folder: Path) -> None:
    """Download one file of a model to its path below `folder`, in place of what is there.

    Raises:
        InputError: it cannot be had, or is not the file of this commit; nothing of it is left then.
    """
    if not sys.stderr.isatty():
        disable_progress_bars()  # a log is told the size beforehand
    target = folder / file.path
    target.unlink(missing_ok=True)  # the library takes what is there, whatever it holds
    with _one_line(hub):
        hf_hub_download(
            hub,
            file.path,
            revision=commit,
            local_dir=folder,
            endpoint=os.environ.get("HF_ENDPOINT"),
            library_name="gen4det",
        )
    if not file.matches(target):
        target.unlink()
        raise InputError(f"{hub}: {file.path} is not the file of commit {commit}; the download was deleted")


@contextlib.contextmanager
def _one_line(hub: str) -> Iterator[None]:
    """Whatever can go wrong with a server becomes one line that names the model."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise InputError(f"{hub}: not there yet, and HF_HUB_OFFLINE forbids to download it") from error
    except GatedRepoError as error:
        raise InputError(
            f"{hub}: its owner asks you to accept the licence on the model's page; then set HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; it does not exist, or is private: then set HF_TOKEN" if status in (401, 403, 404) else ""
        raise InputError(f"{hub}: HTTP {status} from {error.response.url}{hint}") from error
    except (httpx2.HTTPError, OSError, ValueError, TypeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise InputError(f"{hub}: {type(error).__name__}: {lines[0]}") from error
