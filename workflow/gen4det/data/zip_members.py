"""Zips that are read by name, without an object in memory for each of their members.

`zipfile.ZipFile` makes one of 600 bytes of every entry of the directory, in every process, whatever is read.
Here the directory stays in the file: an entry is found by a checksum of its name, and `zipfile` sees, member
by member, an archive that holds this one alone.
"""

import io
import os
import struct
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

# The records of the format (APPNOTE.TXT 6.3.10 of PKWARE, section 4.3), from their signatures on.
_ENTRY = struct.Struct("<4s4xH6xIII3H8xI")
"""Flags, checksum, two sizes, lengths of name, extra field and comment, place of the member."""
_END = struct.Struct("<4s8xIIH")
"""Size and place of the directory, length of the comment."""
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_IS_UTF8, _IN_EXTRA = 0x800, 0xFFFFFFFF
_READ_AHEAD = 1 << 20


class ZipDirectory:
    """The directory of a zip, which stays in its file.

    Args:
        path: of the archive.

    Raises:
        zipfile.BadZipFile: cut short, or not a zip.
        OSError: not readable.
    """

    def __init__(self, path: str | Path):
        self._file = open(path, "rb")  # closed when the last reader of a member lets go of it
        self._start, self._size, self._said = _place(self._file)

    def names(self) -> Iterator[str]:
        """Names of all members, in the order of the directory."""
        return (_name(fields, raw) for _, fields, raw, _ in self._entries())

    def contents(self) -> Iterator[tuple[str, int, int]]:
        """(name, size in bytes, CRC-32) of all members, in the order of the directory."""
        for _, fields, raw, entry in self._entries():
            _, _, checksum, _, size, *_ = fields
            if size == _IN_EXTRA:
                size = self._alone(entry).infolist()[0].file_size
            yield _name(fields, raw), size, checksum

    def _entries(self) -> Iterator[tuple[int, tuple, bytes, bytes]]:
        """(place in the directory, its fields, name, the whole entry) of all members."""
        done = 0
        with io.BufferedReader(_Section(self._file, self._start, self._size), _READ_AHEAD) as stream:
            while done < self._size:
                head = stream.read(_ENTRY.size)
                fields = _fields(head)
                rest = stream.read(sum(fields[5:8]))
                if len(rest) < sum(fields[5:8]):
                    raise zipfile.BadZipFile("directory cut short")
                yield done, fields, rest[: fields[5]], head + rest
                done += len(head) + len(rest)

    def _alone(self, entry: bytes) -> zipfile.ZipFile:
        """The archive as if it held a single member."""
        end = _END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, 1, 1, len(entry), self._said)
        end += _LOCATOR.pack(b"PK\6\7", 0, self._start + len(entry), 1)
        end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry), min(self._said, _IN_EXTRA), 0)
        return zipfile.ZipFile(io.BufferedReader(_Section(self._file, 0, self._start, entry + end)))


class ZipMembers(ZipDirectory):
    """The members of a zip by name, stored or deflated: eight bytes of memory each.

    Processes forked from the one that opened it may use it, and several threads: no file offset is shared.

    Raises:
        zipfile.BadZipFile: cut short, or not a zip.
        OSError: not readable.
    """

    def __init__(self, path: str | Path):
        super().__init__(path)
        checksums, places = array("I"), array("Q")
        for place, _, raw, _ in self._entries():
            checksums.append(zlib.crc32(raw))
            places.append(place)
        order = np.argsort(np.array(checksums), kind="stable")
        self._checksums = np.array(checksums)[order]
        self._places = np.array(places, np.uint32 if self._size < 2**32 else np.uint64)[order]

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def open(self, name: str) -> BinaryIO:
        """The decoded bytes of a member, as a file; of several of one name the last.

        Raises:
            KeyError: no such member.
            zipfile.BadZipFile, RuntimeError: damaged, or compressed or encrypted in a way that is not read.
        """
        entry = self._find(name)
        if entry is None:
            raise KeyError(name)
        archive = self._alone(entry)
        return archive.open(archive.infolist()[0])

    def _find(self, name: str) -> bytes | None:
        """The entry of a member."""
        # Without a flag that says otherwise names are in the code page of the first PCs.
        for raw in {name.encode("utf-8", "surrogatepass"), name.encode("cp437", "replace")}:
            checksum = np.uint32(zlib.crc32(raw))
            first, last = (
                int(np.searchsorted(self._checksums, checksum, side)) for side in ("left", "right")
            )
            for place in reversed(self._places[first:last].tolist()):
                head = os.pread(self._file.fileno(), _ENTRY.size, self._start + place)
                fields = _fields(head)
                rest = os.pread(self._file.fileno(), sum(fields[5:8]), self._start + place + len(head))
                if _name(fields, rest[: fields[5]]) == name:
                    return head + rest
        return None


def _fields(head: bytes) -> tuple:
    if len(head) < _ENTRY.size or head[:4] != b"PK\1\2":
        raise zipfile.BadZipFile("damaged directory")
    return _ENTRY.unpack(head)


def _name(fields: tuple, raw: bytes) -> str:
    return raw.decode("utf-8" if fields[1] & _IS_UTF8 else "cp437")


def _place(file: BinaryIO) -> tuple[int, int, int]:
    """(where the directory begins, its size, where the archive says that it begins): the first and the
    third differ where something was put before the archive."""
    length = file.seek(0, os.SEEK_END)
    first = max(0, length - _END.size - 0xFFFF)  # a comment of up to this length follows the end
    file.seek(first)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("no end of a directory")
    _, size, said, _ = _END.unpack_from(tail, at)
    stop = first + at
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size : at - _LOCATOR.size + 4] == b"PK\6\7":
        stop -= _LOCATOR.size + _END64.size
        file.seek(max(0, stop))
        end = file.read(_END64.size)
        if len(end) < _END64.size or end[:4] != b"PK\6\6":
            raise zipfile.BadZipFile("no end of a large directory")
        *_, size, said = _END64.unpack(end)
    start = stop - size
    if start < 0 or said > start:
        raise zipfile.BadZipFile("directory cut short")
    return start, size, said


class _Section(io.RawIOBase):
    """A part of a file with something behind it, read without moving the file's offset."""

    def __init__(self, file: BinaryIO, start: int, size: int, behind: bytes = b""):
        self._file, self._start, self._size, self._behind = file, start, size, behind
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        ends = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size + len(self._behind)}
        if ends[whence] + offset < 0:
            raise OSError("before the beginning")
        self._at = ends[whence] + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:
        if self._at < self._size:
            wanted = min(len(buffer), self._size - self._at)
            found = os.pread(self._file.fileno(), wanted, self._start + self._at)
        else:
            found = self._behind[self._at - self._size :][: len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
