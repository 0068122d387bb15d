"""Hashes of the files that jobs read beside their inputs: models, and configs of detectors."""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gen4det.core.provenance import content_hash, file_hash, write_json
from gen4det.core.settings import Settings
from gen4det.detection.config_files import config_files
from gen4det.detection.settings import DetectorSettings

FULLY_HASHED = 64 * 2**20
"""Model files up to this many bytes are hashed whole, larger ones by samples."""


def model_hashes(
    settings: Any, root: Path, *, is_downloaded: Callable[[str], object] = lambda path: False
) -> dict[str, str]:
    """Hashes of the models in these settings that lie on this disk; those of the hub are named by revision.

    Args:
        settings: plain settings, see `model_paths`.
        is_downloaded: whether a path is that of a model that a rule downloads. Such models are inputs.
    """
    paths = [path for path in model_paths(settings) if not is_downloaded(path)]
    return {path: digest for path in paths if (digest := folder_hash(root / path))}


def model_paths(settings: Any) -> Iterator[str]:
    """Paths of the models in plain settings; a model is a mapping of `path` and `revision`."""
    if isinstance(settings, dict):
        if settings.keys() == {"path", "revision"}:
            yield settings["path"]
        for value in settings.values():
            yield from model_paths(value)


def detector_files(
    detector: DetectorSettings, root: Path, *, is_downloaded: Callable[[str], object]
) -> dict[str, str]:
    """Hashes of the files that the training of a detector reads beside its data: config files, backbone.

    Args:
        is_downloaded: whether a path is that of a model that a rule downloads. Such models are inputs.
    """
    files = config_files(root / detector.config)
    if detector.backbone_weights and not is_downloaded(detector.backbone_weights):
        files.append(root / detector.backbone_weights)
    return {str(file.relative_to(root)): sampled_hash(file) for file in files if file.is_file()}


def inner_detectors(values: Iterable[Any]) -> Iterator[DetectorSettings]:
    """Detectors that these values of settings describe themselves, at any depth."""
    for value in values:
        if isinstance(value, DetectorSettings):
            yield value
        elif isinstance(value, Settings):
            yield from inner_detectors(inner for _, inner in value)


@functools.cache
def folder_hash(folder: Path) -> str | None:
    """Hash (16 hex digits) of the files below a folder, links followed; None if there is no such folder.

    A pipeline may share parts with another one by links to its folders.

    Files above `FULLY_HASHED` count with their size and 64 samples of 64 KiB: weights that were trained anew
    differ everywhere, and the Snakefile must not read gigabytes every time it is parsed.
    """
    if not folder.is_dir():
        return None
    found = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    files = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    return content_hash([[str(path.relative_to(folder)), sampled_hash(path)] for path in files])[:16]


@functools.cache
def sampled_hash(path: Path) -> str:
    """Hash (16 hex digits) of one file, of samples if it is large; see `folder_hash`."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as stream:
        if size <= FULLY_HASHED:
            digest.update(stream.read())
        else:
            for position in range(0, size, size // 64):
                stream.seek(position)
                digest.update(stream.read(65536))
    return digest.hexdigest()[:16]


class RememberedHashes:
    """Hashes of whole files, kept in a small file, since reading a gigabyte takes seconds.

    A file is read again when its size or one of its times has changed; times themselves never count.

    Args:
        memory: the file; where it cannot be written, nothing is remembered.
    """

    def __init__(self, memory: Path):
        self.memory = memory

    def of(self, path: Path) -> str | None:
        """Hash (16 hex digits) of a file's bytes; None if there is no such file."""
        if not path.is_file():
            return None
        about = path.stat()
        seen = [about.st_size, about.st_mtime_ns, about.st_ctime_ns]
        remembered = self._remembered()
        *known, digest = remembered.get(str(path.absolute()), [None])
        if known != seen:
            digest = file_hash(path)[:16]
            with contextlib.suppress(OSError):
                write_json(self.memory, remembered | {str(path.absolute()): [*seen, digest]})
        return digest

    def _remembered(self) -> dict[str, list]:
        try:
            return json.loads(self.memory.read_bytes())
        except (OSError, ValueError):
            return {}
