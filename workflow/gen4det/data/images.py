"""Where the pixels lie: folders of image files, stored zips, and folders of stored zips (shards)."""

import contextlib
import io
import os
import struct
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageOps

from gen4det.core.errors import InputError
from gen4det.core.provenance import atomic_write
from gen4det.data.suffixes import IMAGE_SUFFIXES
from gen4det.data.zip_members import ZipMembers

JPEG_QUALITY = 95
Image.MAX_IMAGE_PIXELS = 1_000_000_000
"""Pillow takes more than twice this many pixels for an attack; its own limit, 179 million in effect, is below
what aerial photographs have."""
OPEN_ARCHIVES = 64
"""Archives one process keeps open; far below the usual limit of 1024 file descriptors."""

# Formats whose EXIF block stands in the header. For PNG, Pillow would have to decode the image to find it.
_EXIF_FORMATS = frozenset({"JPEG", "MPO", "WEBP", "TIFF"})
_EXIF_ORIENTATION = 0x0112
_EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
)
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip


def image_name(record: dict) -> str:
    """Name in the ImageStore of an image record: `file_name`, else the last two parts of `coco_url`.

    LVIS v1 has no `file_name`, and its validation images lie in COCO's train2017 and val2017 folders:
    "train2017/000000000009.jpg".

    Raises:
        InputError: the record has neither. The message has no source; callers add it.
    """
    name = record.get("file_name")
    if isinstance(name, str) and name:
        return name
    url = record.get("coco_url")
    if isinstance(url, str) and url:
        return "/".join(PurePosixPath(urlsplit(url).path).parts[-2:])
    raise InputError(f"image {record.get('id')}: neither file_name nor coco_url")


class ImageStore:
    """Read access to images by name, whatever holds them.

    A name is a relative path with forward slashes. Below a folder it may run through a zip:
    "00003.zip/000000000042.png" is a member of the shard 00003.zip.

    The store may be pickled and sent to DataLoader workers, forked or spawned: archives are opened on first
    use, and forked processes go on using those that were open. It may be used by several threads.

    Args:
        root: a folder, or a zip whose members are stored or deflated.
        white: the value of 16 bits per channel that becomes 255; see `to_eight_bits`. None: such images are
            refused, because nobody can tell what their sensor's range was.

    Raises:
        InputError: there is neither a folder nor a zip at `root`.
    """

    def __init__(self, root: str | Path, *, white: int | None = None):
        self.root = Path(root)
        self.white = white
        if not self.root.exists():
            raise InputError(f"{self.root}: no such folder or zip of images")
        if not self.root.is_dir() and self.root.suffix != ".zip":
            raise InputError(f"{self.root}: expected a folder of images or a .zip")
        self._forget_archives()

    def _forget_archives(self) -> None:
        self._archives: OrderedDict[Path, ZipMembers] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        return {"root": self.root, "white": self.white}

    def __setstate__(self, state: dict) -> None:
        self.root, self.white = state["root"], state["white"]
        self._forget_archives()

    def __repr__(self) -> str:
        return f"ImageStore({str(self.root)!r})"

    def read(self, name: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            InputError: no such image, or the archive is truncated or damaged (its CRC is checked).
        """
        with self._open(name) as stream:
            return stream.read()

    def image(self, name: str) -> np.ndarray:
        """The decoded image, uint8 (H, W, 3) RGB, turned upright as its EXIF orientation asks.

        Grey, palette and CMYK images are converted, transparency is dropped.

        Raises:
            InputError: missing, truncated, not an image, or more than 8 bits per channel where no white is
                given, or more than 16.
        """
        with self._decoding(name) as picture:
            orientation = _orientation(picture)
            if _has_sixteen_bits(picture) and self.white is not None:
                if orientation != 1:  # OpenCV turns some of the eight right, others wrong
                    raise InputError(
                        f"{self.root / name}: 16 bits, with a turned orientation; store it upright"
                    )
                deep = read_sixteen_bits(self.read(name), self.root / name)
                return to_eight_bits(deep, self.white)
            if picture.mode not in _EIGHT_BIT_MODES or _has_sixteen_bits(picture):
                raise InputError(
                    f"{self.root / name}: more than 8 bits per channel, grey or colour; convert it to 8, "
                    "scaled as its sensor's range asks, or, of 16 bits, say in the setting sixteen_bit of "
                    "the data set what is white: full-range, or e.g. 4095 for 12-bit data"
                )
            if orientation != 1:
                picture = ImageOps.exif_transpose(picture)
            return np.array(picture.convert("RGB"))

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) in pixels of the upright image, from the header alone.

        Raises:
            InputError: missing or not an image.
        """
        with self._decoding(name) as picture:
            width, height = picture.size
            return (height, width) if _orientation(picture) >= 5 else (width, height)

    def is_plain(self, name: str) -> bool:
        """Whether every reader sees the image as `image` gives it: upright, 8 bits per channel.

        Raises:
            InputError: missing or not an image.
        """
        with self._decoding(name) as picture:
            return _orientation(picture) == 1 and not _has_sixteen_bits(picture)

    def file_of(self, name: str) -> Path:
        """The file that holds an image: its own, or the zip it is a member of."""
        return self._locate(name)[0]

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name; it is not opened.

        Raises:
            InputError: the archive it would lie in is unreadable, or the name leaves the store.
        """
        path, member = self._locate(name)
        if member is None:
            return path.is_file()
        return path.is_file() and member in self._archive(path)

    def names(self) -> list[str]:
        """Names of all image files, sorted; members of the zips below a folder included.

        Raises:
            InputError: an archive is unreadable.
        """
        if not self.root.is_dir():
            return sorted(_image_members(self._archive(self.root)))
        found = []
        for folder, _, files in os.walk(self.root, followlinks=True):
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self.root).as_posix()
                if path.suffix == ".zip":
                    found += [f"{name}/{member}" for member in _image_members(self._archive(path))]
                elif path.suffix.lower() in IMAGE_SUFFIXES:
                    found.append(name)
        return sorted(found)

    # --- where a name leads -------------------------------------------------------------------------

    def _locate(self, name: str) -> tuple[Path, str | None]:
        """(file, None), or (archive, member of it)."""
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            raise InputError(f"{self.root}: image name {name!r} is not a path below the images' folder")
        if not self.root.is_dir():
            return self.root, "/".join(parts)
        for depth, part in enumerate(parts[:-1], start=1):
            if part.endswith(".zip"):
                archive = self.root.joinpath(*parts[:depth])
                if not archive.is_dir():
                    return archive, "/".join(parts[depth:])
        return self.root.joinpath(*parts), None

    def _archive(self, path: Path) -> ZipMembers:
        with self._lock:
            if path in self._archives:
                self._archives.move_to_end(path)
                return self._archives[path]
            archive = _open_archive(path)
            self._archives[path] = archive
            if len(self._archives) > OPEN_ARCHIVES:
                self._archives.popitem(last=False)  # closed when its last reader lets go of it
            return archive

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        path, member = self._locate(name)
        try:
            stream = open(path, "rb") if member is None else self._archive(path).open(member)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError) as error:
            raise InputError(f"{self.root / name}: no such image") from error
        except (zipfile.BadZipFile, EOFError, RuntimeError) as error:  # RuntimeError: encrypted or exotic
            raise InputError(f"{path}: damaged zip: {error}") from error
        except OSError as error:
            raise InputError(f"{self.root / name}: {error.strerror or error}") from error
        with stream:
            try:
                yield stream
            except (zipfile.BadZipFile, EOFError) as error:
                raise InputError(f"{path}: damaged zip: {error}") from error
            except OSError as error:
                raise InputError(f"{self.root / name}: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _decoding(self, name: str) -> Iterator[Image.Image]:
        """The opened, not yet decoded image; failures of decoding name the file."""
        with self._open(name) as stream:
            try:
                with Image.open(stream) as picture:
                    yield picture
            except Image.UnidentifiedImageError as error:
                if _is_heif(stream):
                    raise InputError(
                        f"{self.root / name}: HEIC or AVIF, which is not read; convert it to JPEG or PNG"
                    ) from error
                raise InputError(f"{self.root / name}: not an image") from error
            except _DAMAGED as error:
                raise InputError(f"{self.root / name}: damaged image: {error}") from error


def _has_sixteen_bits(picture: Image.Image) -> bool:
    """Whether the file has 16 bits per channel; of colours Pillow keeps the upper 8 without a word."""
    return any(";16" in str(tile[3]) for tile in picture.tile)


def read_sixteen_bits(content: bytes, name: object) -> np.ndarray:
    """Decode a PNG or TIFF of 16 bits per channel, uint16 (H, W, 3) RGB; grey is repeated, alpha dropped.

    OpenCV decodes, since Pillow has no colours of 16 bits.

    Raises:
        InputError: damaged, or values that are no uint16.
    """
    import cv2  # only here: data of 8 bits need it nowhere

    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise InputError(f"{name}: damaged image")
    if array.dtype != np.uint16:
        raise InputError(f"{name}: values of type {array.dtype}; expected 8 or 16 bits without sign")
    array = array.reshape(*array.shape[:2], -1)
    if array.shape[2] < 3:
        return np.repeat(array[..., :1], 3, axis=2)
    return np.ascontiguousarray(array[..., 2::-1])


def to_eight_bits(values: np.ndarray, white: int) -> np.ndarray:
    """uint8 of uint16 values: 0 stays 0, `white` and all above become 255, linear and rounded in between."""
    scaled = np.minimum(values, white).astype(np.uint32) * 255
    return ((scaled + white // 2) // white).astype(np.uint8)


def _is_heif(stream: BinaryIO) -> bool:
    """Whether a file begins like those of the ISO base media format, as HEIC does."""
    stream.seek(0)
    return stream.read(8)[4:] == b"ftyp"


def _orientation(picture: Image.Image) -> int:
    if picture.format not in _EXIF_FORMATS:
        return 1
    return picture.getexif().get(_EXIF_ORIENTATION, 1)


def _open_archive(path: Path) -> ZipMembers:
    try:
        return ZipMembers(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such zip of images") from error
    except (zipfile.BadZipFile, OSError, EOFError, struct.error) as error:
        # The directory of a zip stands at its end, so that a zip cut short is always noticed here.
        raise InputError(f"{path}: truncated, or not a zip archive ({error})") from error


def _image_members(archive: ZipMembers) -> list[str]:
    return [name for name in archive.names() if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]


class ShardWriter:
    """Writes a stored (uncompressed) zip; equal names and contents in equal order give equal bytes.

    The zip appears under its name only when the `with` block ends without an exception.

    Raises:
        InputError: the disk is full; nothing is left behind.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._names: set[str] = set()

    def __enter__(self) -> "ShardWriter":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_write(self.path))
            stream = stack.enter_context(open(temporary, "wb"))
            self._zip = stack.enter_context(zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, value, traceback) -> bool | None:
        return self._stack.__exit__(kind, value, traceback)

    def add(self, name: str, content: bytes) -> None:
        """Append a member.

        Args:
            name: relative path with forward slashes.

        Raises:
            ValueError: the name is used already, or leaves the archive.
        """
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/") or "\\" in name or "/".join(parts) != name:
            raise ValueError(f"{self.path}: {name!r} is no path inside an archive")
        if name in self._names:
            raise ValueError(f"{self.path}: {name!r} was added twice")
        self._names.add(name)
        member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        member.create_system = 3  # Unix, also when written elsewhere
        member.external_attr = 0o644 << 16
        self._zip.writestr(member, content, zipfile.ZIP_STORED)


def encode_image(array: np.ndarray, format: str) -> bytes:
    """Encode an image.

    Args:
        array: uint8 (H, W, 3) RGB.
        format: "png" (lossless) or "jpeg" (quality 95).

    Raises:
        ValueError: another format, type or shape.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected uint8 (H, W, 3), got {array.dtype} {array.shape}")
    if format not in ("png", "jpeg"):
        raise ValueError(f"image format {format!r}; expected 'png' or 'jpeg'")
    options = {"quality": JPEG_QUALITY} if format == "jpeg" else {}
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format.upper(), **options)
    return stream.getvalue()
