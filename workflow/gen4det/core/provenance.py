"""Where a result comes from: seeds, content hashes, hashes of code, run records, atomic files.

Nothing here imports torch: the Snakefile computes code hashes while it is parsed.
"""

import ast
import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.precision import float32_arithmetic

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
RECORDED_PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv",
    "faster-coco-eval", "numpy", "scipy", "pillow", "snakemake",
)  # fmt: skip


def seed_for(run_seed: int, *names: str | int) -> int:
    """Seed of one item (an image, a worker, a model), independent of order and sharding.

    Returns:
        An integer in [0, 2**63), the leading bits of SHA-256 over the run seed and the names.
    """
    text = json.dumps([run_seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def content_hash(value: object) -> str:
    """SHA-256 (hex) of a JSON-serialisable value; dictionary order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        InputError: the file is missing or unreadable.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


# --- code ---------------------------------------------------------------------------------------


def _module_file(module: str) -> Path | None:
    base = PACKAGE_ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _direct_imports(module: str) -> frozenset[str]:
    """Modules of gen4det that `module` imports anywhere in its text, functions included."""
    tree = ast.parse(_module_file(module).read_bytes())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.split(".")[0] == "gen4det" and _module_file(name))


@functools.cache
def import_closure(*modules: str) -> tuple[str, ...]:
    """All modules of gen4det reachable from `modules` by import statements, sorted.

    Raises:
        InputError: a module does not exist.
    """
    for module in modules:
        if _module_file(module) is None:
            raise InputError(f"{module}: no such module in {PACKAGE_ROOT}")
    seen: set[str] = set()
    queue = list(modules)
    while queue:
        module = queue.pop()
        if module not in seen:
            seen.add(module)
            queue.extend(_direct_imports(module))
    return tuple(sorted(seen))


@functools.cache
def code_hash(*modules: str) -> str:
    """Hash (16 hex digits) of the source text of the modules' import closure inside gen4det.

    Snakemake tracks the text of a rule, not the package a rule calls; this hash is passed as a
    parameter instead. It follows contents, not modification times.
    """
    digest = hashlib.sha256()
    for module in import_closure(*modules):
        digest.update(module.encode() + b"\0" + _module_file(module).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# --- files --------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed to `path`.

    On any exception the temporary file or folder is removed and `path` is untouched.

    Raises:
        InputError: the disk is full or the quota is used up.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)) / path.name
    try:
        yield temporary
        if temporary.is_file():
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            temporary.chmod(0o666 & ~_umask())  # some writers leave files that only their owner can read
        elif path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: {os.strerror(error.errno)}; nothing was written") from error
        raise
    finally:
        shutil.rmtree(temporary.parent, ignore_errors=True)


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: object, *, indent: int | None = None) -> None:
    """Write JSON atomically with sorted keys, so that equal values give equal bytes."""
    with atomic_write(path) as temporary:
        separators = (",", ": ") if indent else (",", ":")
        temporary.write_text(json.dumps(value, sort_keys=True, indent=indent, separators=separators) + "\n")


# --- records ------------------------------------------------------------------------------------


class RunRecord:
    """Pedigree of one result, written to `<result>.record.json` when the block ends without error.

    Args:
        result: the file the record stands beside.
        settings: the resolved settings the stage read.
        code: module names whose closure was run.
        seeds: named seeds.
        inputs: files that were read; their SHA-256 are recorded.

    Use `record.add(key=value)` for facts learned on the way (device, counts, losses).
    """

    def __init__(
        self,
        result: str | Path,
        *,
        settings: dict,
        code: tuple[str, ...],
        seeds: dict[str, int] | None = None,
        inputs: tuple[str | Path, ...] = (),
    ):
        self.path = Path(f"{result}.record.json")
        self.facts = {
            "result": Path(result).name,
            "settings": settings,
            "code": {"modules": list(code), "hash": code_hash(*code)},
            "seeds": seeds or {},
            "inputs": {str(path): file_hash(path) for path in inputs},
            "command": sys.argv,
            "python": platform.python_version(),
            "packages": _package_versions(),
            "device": "cpu",
        }

    def add(self, **facts: object) -> None:
        """Add facts to the record; a later value of the same name wins."""
        self.facts.update(facts)

    def __enter__(self) -> "RunRecord":
        self._started = time.time()
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if kind is not None:
            return
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.add(
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            wall_seconds=round(time.time() - self._started, 3),
            peak_memory_mib=round(peak_kib / 1024, 1),
        )
        torch = sys.modules.get("torch")
        if torch is not None:
            self.add(arithmetic=float32_arithmetic())
        if torch is not None and torch.cuda.is_initialized():  # not merely there, but used
            self.add(
                device=torch.cuda.get_device_name(),
                peak_gpu_memory_mib=round(torch.cuda.max_memory_allocated() / 2**20, 1),
            )
        write_json(self.path, self.facts, indent=1)


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
