"""Download one file: resumable, checked, atomic.

A download goes to `<target>.part`. Cut off, by the network or by us, it is resumed where it stopped, if the
server still has the same file; it gets its name only when it is complete and its checksum is right.
"""

import contextlib
import errno
import http.client
import json
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.progress import transfer_bar
from gen4det.core.provenance import file_hash, write_json

log = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which a connection counts as lost."""
FRUITLESS_ATTEMPTS = 5
"""Attempts in a row that bring no byte before we give up. One that brings something starts the count anew."""
RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class _ConnectionLost(Exception):
    """The transfer ended early and may be taken up again."""


@dataclass(frozen=True)
class RemoteFile:
    """What a server says of a file."""

    url: str
    size: int | None
    """Bytes, where the server tells."""
    validator: str | None
    """Strong ETag or date of last change; the same as long as the file is the same."""


def probe(url: str, *, pause: float = 1.0) -> RemoteFile:
    """Ask for a file without fetching it.

    Args:
        pause: seconds before the second attempt; doubled from attempt to attempt.

    Raises:
        InputError: not there, not allowed, or the server cannot be reached.
    """
    for attempt in range(FRUITLESS_ATTEMPTS):
        try:
            with _open(url) as response:
                return _described(url, response, offset=0)
        except _ConnectionLost as error:
            lost = error
            time.sleep(pause * 2**attempt if attempt + 1 < FRUITLESS_ATTEMPTS else 0)
    raise InputError(f"{url}: {lost}")


def fetch(
    url: str, target: str | Path, *, size: int | None = None, sha256: str | None = None, pause: float = 1.0
) -> str:
    """Download `url` to `target`, or resume an earlier attempt.

    Args:
        size: bytes the file must have.
        sha256: checksum (hex) the file must have, or its first digits.
        pause: seconds before a repeated attempt; doubled from one fruitless attempt to the next.

    Returns:
        SHA-256 (hex) of the file.

    Raises:
        InputError: HTTP error, lost connection, wrong size or checksum, or too little disk. After a wrong
            checksum the bytes are deleted; in all other cases they stay for the next call.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = partial(target)
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, part, size)
            break
        except _ConnectionLost as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise InputError(
                    f"{url}: {error}; {_size(part)} bytes are kept in {part}, the next run goes on from there"
                ) from None
            log.warning("%s: %s after %d bytes; trying again", url, error, _size(part))
            time.sleep(pause * 2**fruitless)
    digest = file_hash(part)
    if sha256 is not None and not digest.startswith(sha256):
        _forget(part)
        raise InputError(f"{url}: SHA-256 is {digest}, expected {sha256}; the download was deleted")
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, target)
    _forget(part)
    return digest


def require_space(folder: str | Path, needed: int, purpose: str) -> None:
    """Raise InputError if `folder`'s disk has fewer than `needed` bytes left."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {purpose} takes {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB of disk are free"
        )


def partial(target: Path) -> Path:
    """Where the bytes of an unfinished download lie."""
    return target.with_name(target.name + ".part")


# --- one connection -------------------------------------------------------------------------------


def _transfer(url: str, part: Path, size: int | None) -> None:
    """Append to `part` what is missing. Raises _ConnectionLost if that may be tried again."""
    earlier = _remembered(part, url)
    have = _size(part) if earlier is not None else 0
    if earlier is not None and earlier.size == have:
        return
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if earlier.validator:
            headers["If-Range"] = earlier.validator
    try:
        response = _open(url, headers)
    except _RangeRefused:
        _forget(part)  # longer than the file is now
        raise _ConnectionLost("the file on the server has changed") from None
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        remote = _described(url, response, offset=have if resumed else 0)
        if resumed and (_range_start(response) != have or remote.size != earlier.size):
            _forget(part)
            raise _ConnectionLost("the file on the server has changed")
        if size is not None and remote.size not in (None, size):
            raise InputError(f"{url}: the server has {remote.size} bytes, expected {size}")
        if not resumed:
            have = 0
            _forget(part)
        require_space(part.parent, (remote.size or 0) - have, f"the rest of {url}")
        write_json(_memory(part), {"url": url, "size": remote.size, "validator": remote.validator})
        _append(response, part, have, remote)
    if remote.size is not None and _size(part) != remote.size:
        raise _ConnectionLost("the connection was closed early")


def _append(response: http.client.HTTPResponse, part: Path, have: int, remote: RemoteFile) -> None:
    with open(part, "ab") as stream, transfer_bar(remote.url.rpartition("/")[2], have, remote.size) as bar:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _ConnectionLost(f"the connection was lost ({error})") from error
            if not chunk:
                return
            try:
                stream.write(chunk)
                stream.flush()
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise InputError(
                        f"{part}: {os.strerror(error.errno)}; what was fetched is kept"
                    ) from error
                raise
            bar.update(len(chunk))


class _RangeRefused(Exception):
    """HTTP 416."""


def _open(url: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    base = {"User-Agent": "gen4det", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=base | (headers or {}))
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _RangeRefused from None
        if error.code in RETRYABLE:
            raise _ConnectionLost(f"HTTP {error.code} {error.reason}") from None
        raise InputError(f"{url}: HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _ConnectionLost(f"cannot be reached ({error.reason})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _ConnectionLost(f"cannot be reached ({error})") from None


def _described(url: str, response: http.client.HTTPResponse, *, offset: int) -> RemoteFile:
    length = response.headers.get("Content-Length")
    tag = response.headers.get("ETag")
    # A weak tag (W/"...") promises the same meaning, not the same bytes.
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    return RemoteFile(url, None if length is None else int(length) + offset, validator)


def _range_start(response: http.client.HTTPResponse) -> int | None:
    """First byte of a partial answer: "bytes 100-199/200" gives 100."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else None


# --- what is known of a partial file --------------------------------------------------------------


def _memory(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remembered(part: Path, url: str) -> RemoteFile | None:
    """The remote file that `part` was begun from; None if there is nothing to go on with."""
    try:
        facts = json.loads(_memory(part).read_text())
    except (FileNotFoundError, ValueError):
        return None
    # Without size or validator nothing would tell that the file has been replaced in the meantime.
    if facts["url"] != url or facts["size"] is None or facts["validator"] is None or not part.exists():
        return None
    return RemoteFile(**facts)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(part: Path) -> None:
    for path in (part, _memory(part)):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
