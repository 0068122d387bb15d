"""Public data sets: from the registry of downloads to a descriptor."""

import logging
import os
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import file_hash
from gen4det.core.settings import suggest
from gen4det.data.archives import DamagedArchive, unpack
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset, write_split
from gen4det.data.download import fetch, partial, probe, require_space
from gen4det.data.download_lock import exclusive, record, recorded
from gen4det.data.download_settings import DownloadDataset
from gen4det.data.images import ImageStore
from gen4det.data.mirrors import Places, SplitPlace, find_mirrored
from gen4det.data.photographs import complete_splits, summary
from gen4det.data.registry import RegisteredDataset, RegisteredFile, Registry, load_registry
from gen4det.data.spool import load_spooled
from gen4det.data.validation import drop_unusable, validate_annotations
from gen4det.data.voc import voc_annotations

log = logging.getLogger(__name__)


def obtain(files: dict[str, RegisteredFile], folder: str | Path, *, pause: float = 1.0) -> None:
    """Download and unpack what is not there yet; everything is asked for before the first byte is fetched.

    An archive that a user has put in its place is used instead of a download. Archives are deleted once they
    are unpacked; a damaged one is deleted, too, if it was downloaded.

    Args:
        files: by name in the registry.
        pause: see `download.fetch`.

    Raises:
        InputError: the first thing that fails; a further call goes on from there.
    """
    folder = Path(folder)
    with exclusive(folder):
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
    archive = folder / file.archive
    expected = file.sha256 or recorded(folder, name, url=file.url).get("sha256")
    is_fetched = not archive.exists()
    if not is_fetched:
        digest = file_hash(archive)
        if expected not in (None, digest):
            raise InputError(f"{archive}: SHA-256 is {digest}, expected {expected}")
    else:
        digest = fetch(file.url, archive, size=file.bytes, sha256=expected, pause=pause)
    facts = {"url": file.url, "bytes": archive.stat().st_size, "sha256": digest}
    try:
        unpack(archive, file.contains, folder / file.place)
    except DamagedArchive as error:
        if is_fetched:
            archive.unlink()  # so that a further call fetches it anew
            raise
        raise InputError(f"{error}; delete it to download it") from error
    record(folder, name, facts)
    archive.unlink()


def prepare_public(name: str, settings: DownloadDataset, output: str | Path, *, pause: float = 1.0) -> None:
    """Find or download a public data set and write dataset.json, train.json and val.json.

    Public annotations have flaws that their users live with (COCO 2017 has two boxes of zero height). They
    are left out, counted and named in the log; anything else that `validate_annotations` refuses is an error.

    Raises:
        InputError: unknown data set, or whatever `obtain`, `find_mirrored` and `validate_annotations` refuse.
    """
    output, folder = Path(output), Path(settings.folder)
    registry = load_registry(settings.registry)
    dataset = _registered(registry, settings)
    files = {file: registry.files[file] for file in dataset.files}
    found = find_mirrored(files, settings.root) if settings.root else {}
    places = Places(files, folder, settings.root, found)
    located = {split: places.split(getattr(dataset, split)) for split in ("train", "val")}
    obtain({file: entry for file, entry in files.items() if file not in found}, folder, pause=pause)

    loaded = {
        split: _load(place, output.parent, is_validation=split == "val") for split, place in located.items()
    }
    completed = complete_splits(loaded["train"], loaded["val"], dataset.format, settings.dataset)
    splits = {}
    for (split, place), data in zip(located.items(), completed, strict=True):
        registered = write_split(output.parent, split, data)
        # Results may be moved together with their downloads; a mirror stays where it is.
        images = place.images.resolve() if place.mirrored else os.path.relpath(place.images, output.parent)
        captions = _captions(place, settings.root, output.parent)
        splits[split] = SplitDescriptor(**registered, images=str(images), captions=captions)
    categories = completed[0]["categories"]
    write_dataset(
        output, DatasetDescriptor(name=name, format=dataset.format, categories=categories, **splits)
    )
    log.info("%s: %s", output, summary(*completed))


def _captions(place: SplitPlace, root: str | None, folder: Path) -> str | None:
    """Path of the captions of a split for its descriptor, where there are some."""
    if place.captions is None:
        return None
    if not place.captions.is_file():  # a folder of the user's own may lack them, and few engines want them
        log.warning("%s: no such file; the data set will have no captions", place.captions)
        return None
    elsewhere = root is not None and place.captions.resolve().is_relative_to(Path(root).resolve())
    return str(place.captions.resolve()) if elsewhere else os.path.relpath(place.captions, folder)


def _registered(registry: Registry, settings: DownloadDataset) -> RegisteredDataset:
    if settings.dataset not in registry.datasets:
        hint = suggest(settings.dataset, registry.datasets)
        raise InputError(f"{settings.registry}: no data set is called {settings.dataset!r}{hint}")
    return registry.datasets[settings.dataset]


def _load(place: SplitPlace, folder: Path, *, is_validation: bool) -> dict:
    """Annotations of a split, without the unusable ones, every image of which is there; those of COCO and
    LVIS on the disk of a folder, whatever their number."""
    source = place.annotations or place.images
    if place.annotations:
        data = load_spooled(source, folder)
    else:
        data = voc_annotations(source, list(place.voc), difficult_as_crowd=is_validation)
    data, dropped = drop_unusable(data, source)
    if dropped:
        log.warning("%s: %d annotations left out: %s", source, len(dropped), "; ".join(dropped[:10]))
    store = ImageStore(place.images)
    validate_annotations(data, source=source, images=store, allow_empty_categories=is_validation)
    return data
