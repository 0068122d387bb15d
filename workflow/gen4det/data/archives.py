"""Unpack archives from strangers: nothing is written outside the folder, nothing half-unpacked is left."""

import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from gen4det.core.errors import InputError
from gen4det.core.progress import progress
from gen4det.core.provenance import atomic_write
from gen4det.data.download import require_space


class DamagedArchive(InputError):
    """The archive is not what it should be; only another copy of it helps."""


def unpack(archive: str | Path, contains: str, target: str | Path) -> None:
    """Unpack an archive and keep one file or folder of it, as `target`.

    Args:
        archive: .zip or .tar (.tar.gz, ...).
        contains: path inside the archive of what is kept.
        target: appears when everything is unpacked; the checksums inside a zip are verified on the way.

    Raises:
        DamagedArchive: truncated, or a checksum is wrong; a member points outside; no `contains` in it.
        InputError: too little disk.
        In all cases nothing is left behind.
    """
    archive, target = Path(archive), Path(target)
    with atomic_write(target) as temporary:
        folder = temporary.parent / "unpacked"
        folder.mkdir()
        try:
            if archive.suffix == ".zip":
                _unzip(archive, folder)
            else:
                _untar(archive, folder)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
            raise DamagedArchive(f"{archive}: truncated or damaged archive: {error}") from error
        if not (folder / contains).exists():
            raise DamagedArchive(f"{archive}: no {contains!r} in the archive")
        os.replace(folder / contains, temporary)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            _refuse_escape(archive, member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DamagedArchive(f"{archive}: member {member.filename!r} is a link")
        require_space(folder, sum(member.file_size for member in members), f"unpacking {archive}")
        for member in progress(members, f"unpacking {archive.name}", "file"):
            opened.extract(member, folder)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        for member in members:
            _refuse_escape(archive, member.name)
        require_space(folder, sum(member.size for member in members), f"unpacking {archive}")
        for member in progress(members, f"unpacking {archive.name}", "file"):
            opened.extract(member, folder, filter="data")  # refuses links and devices that lead outside


def _refuse_escape(archive: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
        raise DamagedArchive(f"{archive}: member {name!r} points outside its folder; nothing was unpacked")
