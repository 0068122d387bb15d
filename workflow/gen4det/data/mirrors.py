"""Public data that the user already has: found in a folder of theirs and used in place."""

import logging
from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.data.registry import RegisteredFile, RegisteredSplit

log = logging.getLogger(__name__)


def find_mirrored(files: dict[str, RegisteredFile], root: str | Path) -> dict[str, Path]:
    """What of some downloads lies in a folder, unpacked.

    Looked for are the layout of our own downloads (coco/train2017), that of the archive (VOCdevkit/VOC2007)
    and the bare name (train2017, VOC2007), in this order.

    Returns:
        Name of the download and its path relative to the folder, of those that are there.

    Raises:
        InputError: no such folder, or nothing of the data set is in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"root: no such folder {root}")
    found = {}
    for name, file in files.items():
        candidates = (file.place, Path(file.contains), Path(file.place.name))
        path = next((path for path in candidates if (root / path).exists()), None)
        if path is not None:
            found[name] = path
            log.info(
                "%s: used from %s; licence: %s, cite: %s", name, root / path, file.licence, file.citation
            )
    if not found:
        wanted = ", ".join(sorted({file.place.name for file in files.values()}))
        raise InputError(f"root: {root} holds nothing of this data set; looked for {wanted}")
    return found


@dataclass(frozen=True)
class SplitPlace:
    """Where one split lies."""

    images: Path
    """Folder below which its images are found."""
    mirrored: bool
    """Whether these lie in the user's own folder."""
    annotations: Path | None
    """File in the layout of COCO or LVIS."""
    voc: tuple[tuple[str, str], ...]
    """Instead of a file: (folder of a release below `images`, name of its image set)."""
    captions: Path | None = None
    """File in the layout of COCO; it need not be there."""


@dataclass(frozen=True)
class Places:
    """Where the files of a data set lie: in the user's own folder, or else where downloads are unpacked."""

    files: dict[str, RegisteredFile]
    folder: Path
    """Of downloads."""
    root: str | None
    """The user's own."""
    found: dict[str, Path]
    """What `find_mirrored` found in `root`."""

    def split(self, entry: RegisteredSplit) -> SplitPlace:
        """Where a split of the data set lies.

        Raises:
            InputError: only some of the folders of its images are in `root`.
        """
        mirrored = self._holds_images(entry)
        annotations = self._locate(Path(entry.annotations)) if entry.annotations else None
        captions = self._locate(Path(entry.captions)) if entry.captions else None
        if not mirrored:
            voc = tuple((part.folder, part.image_set) for part in entry.voc)
            return SplitPlace(self.folder / entry.images, False, annotations, voc, captions)
        root = Path(self.root)
        releases = [self._locate(Path(entry.images, part.folder)) for part in entry.voc]
        voc = tuple(
            (str(release.relative_to(root)), part.image_set)
            for release, part in zip(releases, entry.voc, strict=True)
        )
        images = root if voc else self._folder_of_images(Path(entry.images))
        return SplitPlace(images, True, annotations, voc, captions)

    def _holds_images(self, entry: RegisteredSplit) -> bool:
        names = [name for name, file in self.files.items() if _overlap(file.place, Path(entry.images))]
        there = [name for name in names if name in self.found]
        if there and len(there) < len(names):
            missing = ", ".join(name for name in names if name not in self.found)
            raise InputError(
                f"root: {self.root} holds {', '.join(there)}, but not {missing}; their images belong together"
            )
        return bool(there)

    def _folder_of_images(self, path: Path) -> Path:
        """The folder itself, or what the folders below it have in common."""
        if any(path.is_relative_to(file.place) for file in self.files.values()):
            return self._locate(path)
        places = [file.place for file in self.files.values() if file.place.is_relative_to(path)]
        parents = sorted({str(self._locate(place).parent) for place in places})
        if len(parents) > 1:
            raise InputError(f"root: images lie in {' and '.join(parents)}; expected one folder of both")
        return Path(parents[0])

    def _locate(self, path: Path) -> Path:
        """Where a path of the registry lies that is a download or inside one."""
        for name, file in self.files.items():
            if path.is_relative_to(file.place):
                base = Path(self.root, self.found[name]) if name in self.found else self.folder / file.place
                return base / path.relative_to(file.place)
        raise InputError(f"{path}: belongs to none of the downloads {', '.join(self.files)}")


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
