"""Pretrained models of the registry: downloaded once, pinned from then on, described beside their files."""

import logging
import shutil
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.provenance import file_hash
from gen4det.core.settings import suggest
from gen4det.data.download import fetch, partial, probe, require_space
from gen4det.data.download_lock import exclusive, record, recorded
from gen4det.data.hub import HubFile, fetch_file, list_files
from gen4det.data.registry import MODELS, RegisteredModel, RegisteredWeights, load_registry

log = logging.getLogger(__name__)


def obtain_model(name: str, registry: str | Path, folder: str | Path, *, pause: float = 1.0) -> dict:
    """Download what is not there yet of a model, to `<folder>/models/<name>`; check what is there.

    The lock file keeps a model of the hub at the commit that was the newest when its download began, and
    every file at the bytes it had when it was first downloaded.

    Args:
        name: among the models and weights of the registry.
        pause: see `download.fetch`.

    Returns:
        What is downloaded: name, version, licence, citation, where from, and size and SHA-256 of every file.

    Raises:
        InputError: unknown model, too little disk, or the first download that fails; a further call goes on
            from there.
    """
    known, folder = load_registry(registry), Path(folder)
    entry = known.model(name)
    if entry is None:
        raise InputError(f"{registry}: no model is called {name!r}{suggest(name, known.known_models())}")
    log.info("%s: %s, licence: %s, cite: %s", name, entry.version, entry.licence, entry.citation)
    with exclusive(folder):
        obtain = _obtain_weights if isinstance(entry, RegisteredWeights) else _obtain_from_hub
        facts = obtain(name, entry, folder, pause)
    about = {"name": name, "version": entry.version, "licence": entry.licence, "citation": entry.citation}
    return about | facts


# --- one file -------------------------------------------------------------------------------------


def _obtain_weights(name: str, entry: RegisteredWeights, folder: Path, pause: float) -> dict:
    target = folder / MODELS / name / entry.file
    locked = recorded(folder, name, url=entry.url).get("sha256")
    expected = locked or entry.sha256
    if locked and not locked.startswith(entry.sha256 or ""):
        raise InputError(
            f"{name}: SHA-256 was {locked} at the first download, the registry says {entry.sha256}"
        )
    if target.exists():
        digest = file_hash(target)
        if not digest.startswith(expected or ""):
            raise InputError(f"{target}: SHA-256 is {digest}, expected {expected}; delete it to download it")
    else:
        size = entry.bytes or probe(entry.url, pause=pause).size or 0
        require_space(folder, size - _bytes(partial(target)), f"downloading {name}")
        digest = fetch(entry.url, target, size=entry.bytes, sha256=expected, pause=pause)
    facts = {"bytes": target.stat().st_size, "sha256": digest}
    record(folder, name, {"url": entry.url} | facts)
    return {"url": entry.url, "files": {entry.file: facts}}


# --- models of the hub ----------------------------------------------------------------------------


def _obtain_from_hub(name: str, entry: RegisteredModel, folder: Path, pause: float) -> dict:
    place = folder / MODELS / name
    locked = _locked(name, entry, folder)
    commit, files = _files(entry, locked)
    sums = dict(locked.get("files", {}))
    lock = {"hub": entry.hub, "commit": commit, "patterns": sorted(entry.files)}
    # From here on, so that an interrupted download goes on with the same commit.
    record(folder, name, lock | {"files": sums, "complete": False})
    missing = [file for file in files if not file.matches(place / file.path)]
    needed = sum(file.size for file in missing)
    require_space(folder, needed, f"downloading {name}")
    log.info("%s: commit %s of %s, %.2f GB to download", name, commit, entry.hub, needed / 1e9)
    for file in files:
        if file in missing:
            fetch_file(entry.hub, commit, file, place)
        digest = file.sha256 or file_hash(place / file.path)
        sums[file.path] = {"bytes": file.size, "sha256": digest}
        record(folder, name, lock | {"files": sums, "complete": False})
    shutil.rmtree(place / ".cache", ignore_errors=True)  # the library's notes; the lock says more
    sums = {file.path: sums[file.path] for file in files}
    record(folder, name, lock | {"files": sums, "complete": True})
    return {"hub": entry.hub, "commit": commit, "files": sums}


def _locked(name: str, entry: RegisteredModel, folder: Path) -> dict:
    """What is recorded of the model, unless the registry asks for another commit by now."""
    locked = recorded(folder, name, hub=entry.hub)
    return locked if entry.revision in (None, locked.get("commit")) else {}


def _files(entry: RegisteredModel, locked: dict) -> tuple[str, list[HubFile]]:
    """Commit and wanted files; once all are recorded the hub is not asked again."""
    sums = locked.get("files", {})
    if locked.get("complete") and locked["patterns"] == sorted(entry.files):
        files = [HubFile(path, facts["bytes"], facts["sha256"]) for path, facts in sums.items()]
        return locked["commit"], files
    commit, files = list_files(entry.hub, entry.revision or locked.get("commit"))
    for pattern in entry.files:
        if not any(entry.matches(file.path, pattern) for file in files):
            raise InputError(f"{entry.hub}: no file {pattern} at commit {commit}")
    return commit, [file for file in files if any(entry.matches(file.path, p) for p in entry.files)]


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
