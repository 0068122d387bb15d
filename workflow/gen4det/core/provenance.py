"""Where a result comes from: seeds, content hashes, hashes of code, run records, atomic files.

Nothing here imports torch: the Snakefile computes code hashes while it is parsed.
"""

import ast
import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.precision import float32_arithmetic

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
RECORDED_PACKAGES = (
    "torch", "torchvision", "diffusers", "transformers", "onedl-mmdetection", "onedl-mmengine", "onedl-mmcv",
    "faster-coco-eval", "numpy", "pyarrow", "scipy", "pillow", "snakemake",
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


def content_hash_of_list(values: Iterable[object]) -> str:
    """`content_hash` of a list that is never whole in memory."""
    values, digest, comma = iter(values), hashlib.sha256(b"["), ""
    while portion := list(itertools.islice(values, 1000)):
        text = json.dumps(portion, sort_keys=True, default=str)
        digest.update((comma + text[1:-1]).encode())
        comma = ", "
    digest.update(b"]")
    return digest.hexdigest()


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
def _syntax(module: str) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(_module_file(module).read_bytes())


@functools.cache
def _direct_imports(module: str) -> frozenset[str]:
    """Modules of gen4det that `module` imports anywhere in its text, functions included."""
    found = set()
    for node in ast.walk(_syntax(module)):
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
def module_hash(module: str) -> str:
    """Hash (16 hex digits) of what one module of gen4det does: its syntax tree.

    Comments, docstrings, quotes, brackets and line breaks do not count. Nor do empty fields of the tree, in
    which versions of Python differ.
    """
    words: list[str] = []
    _write_syntax(_syntax(module), words)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _write_syntax(node: ast.AST, words: list[str]) -> None:
    words.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None and name != "value" or value == [] or name in ("ctx", "kind", "type_ignores"):
            continue
        words.append(name)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST):
                words.append(repr(item))
            elif not _does_nothing(item, node):
                _write_syntax(item, words)
        words.append("]" if isinstance(value, list) else "")


def _does_nothing(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a node is a statement of text alone, as docstrings are, or an empty part of an f-string."""
    if isinstance(parent, ast.JoinedStr):
        return isinstance(node, ast.Constant) and node.value == ""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def closure_hashes(*modules: str) -> dict[str, str]:
    """Hash of every module of the modules' import closure inside gen4det, by name."""
    return {module: module_hash(module) for module in import_closure(*modules)}


@functools.cache
def code_hash(*modules: str) -> str:
    """Hash (16 hex digits) of the modules' import closure inside gen4det.

    Snakemake tracks the text of a rule, not the package a rule calls; this hash is passed as a
    parameter instead. It follows what the code does, see `module_hash`, not times of files.
    """
    return content_hash(closure_hashes(*modules))[:16]


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
            "code": {"modules": list(code), "hash": code_hash(*code), "closure": closure_hashes(*code)},
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
