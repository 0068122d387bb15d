"""Public data sets: from the registry of downloads to a descriptor."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gen4det.data.annotations import load_annotations, write_annotations
from gen4det.data.archives import DamagedArchive, unpack
from gen4det.data.datasets import DatasetDescriptor, Format, SplitDescriptor, write_dataset
from gen4det.data.download import fetch, partial, probe, require_space
from gen4det.data.images import ImageStore
from gen4det.data.photographs import complete_splits, summary
from gen4det.data.source_settings import DownloadDataset
from gen4det.data.validation import drop_unusable, validate_annotations
from gen4det.data.voc import voc_annotations
from gen4det.errors import InputError
from gen4det.provenance import file_hash, write_json
from gen4det.settings import Settings, parse_settings, suggest
from gen4det.yaml_files import read_yaml

log = logging.getLogger(__name__)

LOCK_FILE = "downloads.lock.json"
RelativePath = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")]
"""Names joined by slashes; none starts with a dot."""


class RegisteredFile(Settings):
    """One archive somebody publishes."""

    version: str
    """The publisher's name of the release."""
    url: Annotated[str, Field(pattern=r"^https?://\S+/[\w.-]+\.(zip|tar|tar\.gz|tgz)$")]
    """Where it is."""
    bytes: Annotated[int, Field(gt=0)] | None
    """Size of the archive; null: unknown."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """Checksum of the archive; null: unknown, the first download is recorded and enforced afterwards."""
    into: RelativePath
    """Folder below the downloads' folder."""
    contains: RelativePath
    """Path inside the archive of what is kept."""
    licence: str
    """Licence of the data."""
    citation: str
    """Who to cite."""

    @property
    def place(self) -> Path:
        """Where the unpacked file or folder lies, relative to the downloads' folder."""
        return Path(self.into, Path(self.contains).name)

    @property
    def archive(self) -> Path:
        """Where the archive lies until it is unpacked, relative to the downloads' folder."""
        return Path(self.into, self.url.rpartition("/")[2])


class VocPart(Settings):
    """One image set of one release of PASCAL VOC."""

    folder: RelativePath
    """Folder of the release, below `images` of its split."""
    image_set: str
    """Name of a list in ImageSets/Main."""


class RegisteredSplit(Settings):
    """One split of a public data set; paths are relative to the downloads' folder."""

    annotations: RelativePath | None = None
    """File in the layout of COCO or LVIS."""
    voc: tuple[VocPart, ...] = ()
    """Instead of a file: parts in the layout of PASCAL VOC."""
    images: RelativePath
    """Folder below which the images are found."""


class RegisteredDataset(Settings):
    """A public data set."""

    format: Format
    """Protocol of its evaluation."""
    files: tuple[str, ...]
    """What has to be downloaded."""
    train: RegisteredSplit
    """Training split."""
    val: RegisteredSplit
    """Validation split."""


class Registry(Settings):
    """All public data we know."""

    files: dict[str, RegisteredFile]
    """Downloads by name."""
    datasets: dict[str, RegisteredDataset]
    """Data sets by name."""


def load_registry(path: str | Path) -> Registry:
    """Read a registry.

    Raises:
        InputError: missing or malformed, or a data set names an unknown download.
    """
    registry = parse_settings(Registry, read_yaml(Path(path)), source=path)
    for name, dataset in registry.datasets.items():
        for file in dataset.files:
            if file not in registry.files:
                raise InputError(
                    f"{path}: datasets.{name}.files: unknown file {file!r}{suggest(file, registry.files)}"
                )
    return registry


def obtain(files: dict[str, RegisteredFile], folder: str | Path, *, pause: float = 1.0) -> None:
    """Download and unpack what is not there yet; everything is asked for before the first byte is fetched.

    An archive that a user has put in its place is used instead of a download. Archives are deleted once they
    are unpacked.

    Args:
        files: by name in the registry.
        pause: see `download.fetch`.

    Raises:
        InputError: the first thing that fails; a further call goes on from there.
    """
    folder = Path(folder)
    with _exclusive(folder):
        missing = {name: file for name, file in files.items() if not (folder / file.place).exists()}
        needed = 0
        for file in missing.values():
            archive = folder / file.archive
            here = next((path for path in (archive, partial(archive)) if path.exists()), None)
            have = here.stat().st_size if here else 0
            size = have if here == archive else probe(file.url, pause=pause).size
            if size is not None and file.bytes not in (None, size):
                source = archive if here == archive else file.url
                raise InputError(f"{source}: {size} bytes, expected {file.bytes}")
            needed += max(0, 2 * (size or file.bytes or 0) - have)  # the archive, and what comes out of it
        require_space(folder, needed, f"downloading and unpacking {', '.join(missing) or 'nothing'}")
        for name, file in missing.items():
            log.info("%s: %s, licence: %s, cite: %s", name, file.url, file.licence, file.citation)
            _obtain_one(name, file, folder, pause)


def _obtain_one(name: str, file: RegisteredFile, folder: Path, pause: float) -> None:
    archive, lock = folder / file.archive, folder / LOCK_FILE
    locked = json.loads(lock.read_text()) if lock.exists() else {}
    known = locked.get(name, {})
    same_url = known.get("url") == file.url
    expected = file.sha256 or (known.get("sha256") if same_url else None)
    if archive.exists():
        digest = file_hash(archive)
        if expected not in (None, digest):
            raise InputError(f"{archive}: SHA-256 is {digest}, expected {expected}")
    else:
        digest = fetch(file.url, archive, size=file.bytes, sha256=expected, pause=pause)
    facts = {"url": file.url, "bytes": archive.stat().st_size, "sha256": digest}
    try:
        unpack(archive, file.contains, folder / file.place)
    except DamagedArchive:
        archive.unlink()  # so that a further call fetches it anew
        raise
    write_json(lock, locked | {name: facts}, indent=1)
    archive.unlink()


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Two jobs that want the same download take turns."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            log.warning("%s: cannot be locked (%s); let no two downloads run at once", folder, error.strerror)
        yield


def prepare_public(name: str, settings: DownloadDataset, output: str | Path, *, pause: float = 1.0) -> None:
    """Download a public data set and write dataset.json, train.json and val.json.

    Public annotations have flaws that their users live with (COCO 2017 has two boxes of zero height). They
    are left out, counted and named in the log; anything else that `validate_annotations` refuses is an error.

    Raises:
        InputError: unknown data set, or whatever `obtain` and `validate_annotations` refuse.
    """
    output, folder = Path(output), Path(settings.folder)
    registry = load_registry(settings.registry)
    if settings.dataset not in registry.datasets:
        hint = suggest(settings.dataset, registry.datasets)
        raise InputError(f"{settings.registry}: no data set is called {settings.dataset!r}{hint}")
    dataset = registry.datasets[settings.dataset]
    obtain({file: registry.files[file] for file in dataset.files}, folder, pause=pause)

    loaded = {}
    for split in ("train", "val"):
        entry: RegisteredSplit = getattr(dataset, split)
        source = folder / (entry.annotations or entry.images)
        if entry.annotations:
            data = load_annotations(source)
        else:
            parts = [(part.folder, part.image_set) for part in entry.voc]
            data = voc_annotations(source, parts, difficult_as_crowd=split == "val")
        data, dropped = drop_unusable(data, source)
        if dropped:
            log.warning("%s: %d annotations left out: %s", source, len(dropped), "; ".join(dropped[:10]))
        store = ImageStore(folder / entry.images)
        validate_annotations(data, source=source, images=store, allow_empty_categories=split == "val")
        loaded[split] = data
    completed = complete_splits(loaded["train"], loaded["val"], dataset.format, settings.dataset)
    splits = {}
    for split, data in zip(("train", "val"), completed, strict=True):
        write_annotations(output.parent / f"{split}.json", data)
        images = os.path.relpath(folder / getattr(dataset, split).images, output.parent)
        splits[split] = SplitDescriptor(annotations=f"{split}.json", images=images)
    write_dataset(output, DatasetDescriptor(name=name, format=dataset.format, **splits))
    log.info("%s: %s", output, summary(*completed))
