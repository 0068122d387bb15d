"""Files that a detector's config is made of; read as text, so that hashing them imports no mmengine."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gen4det.core.errors import InputError


def config_files(path: str | Path) -> list[Path]:
    """An mmengine config file and those it inherits from, of either kind: `_base_`, or `with read_base():`.

    Files of installed packages ("mmdet::...", `from mmdet.configs...`) are left out: their version counts.

    Raises:
        InputError: a file is missing or no Python, or its bases are computed, so that nobody can follow them.
    """
    path = Path(path)
    try:
        tree = ast.parse(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a config of mmengine") from error
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not a config of mmengine: {error}") from error
    found = [path]
    for statement in tree.body:
        for base in _bases(statement, path):
            found += [file for file in config_files(base) if file not in found]
    return found


def _bases(statement: ast.stmt, path: Path) -> Iterator[Path]:
    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_base_":
        try:
            value = ast.literal_eval(statement.value)
        except ValueError:
            raise InputError(
                f"{path}: _base_ is computed ({ast.unparse(statement.value)}), so nobody "
                "could tell when it changes; write the paths themselves"
            ) from None
        names = [value] if isinstance(value, str) else value
        yield from (path.parent / name for name in names if "::" not in name)
    elif isinstance(statement, ast.With) and "read_base" in ast.unparse(statement.items[0].context_expr):
        for line in statement.body:
            if not isinstance(line, ast.ImportFrom):
                raise InputError(f"{path}: line {line.lineno}: expected `from .<base> import *`")
            if line.level:
                folder = path.parents[line.level - 1]
                modules = [line.module] if line.module else [alias.name for alias in line.names]
                yield from (folder.joinpath(*module.split(".")).with_suffix(".py") for module in modules)


def learns_masks(path: Path) -> bool:
    """Whether a detector's config loads masks for its training: `with_mask=True` in its train_pipeline.

    A config without a train_pipeline has that of its base.
    """
    pipeline = _train_pipeline(path)
    words = (node for node in ast.walk(pipeline) if isinstance(node, ast.keyword)) if pipeline else ()
    return any(word.arg == "with_mask" and ast.unparse(word.value) == "True" for word in words)


def _train_pipeline(path: Path) -> ast.expr | None:
    for file in config_files(path):
        for statement in ast.parse(file.read_bytes()).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "train_pipeline":
                return statement.value
    return None


# --- features that are kept while a detector is trained -----------------------------------------------

_SAME_PIXELS = {"LoadStoredImage", "LoadAnnotations", "FilterAnnotations", "Pad", "PackDetInputs"}
"""Transforms that show an image as it is at each visit."""


def kept_draws(path: Path) -> int:
    """`kept_draws` of a FrozenDiffusion backbone, 0 where a config does not say it; a file counts before its
    base."""
    for file in config_files(path):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.keyword) and node.arg == "kept_draws":
                return int(ast.literal_eval(node.value))
    return 0


def guises(path: Path) -> tuple[int | None, int | None]:
    """How an image looks to the detector while it is trained.

    Returns:
        Number of ways it comes in: 1, mirrored or not 2, None where each visit may show another part or size;
        and the greatest area in pixels it is resized to, None where it keeps its own.
    """
    ways, area = 1, None
    pipeline = _train_pipeline(path)
    for transform in pipeline.elts if isinstance(pipeline, ast.List) else ():
        words = {word.arg: ast.unparse(word.value) for word in getattr(transform, "keywords", ())}
        kind = words.get("type", "").strip("'")
        if kind == "RandomFlip":
            ways *= 2
        elif kind == "Resize" and (scale := re.fullmatch(r"\((\d+), (\d+)\)", words.get("scale", ""))):
            area = int(scale[1]) * int(scale[2])
        elif kind not in _SAME_PIXELS:
            return None, area
    return ways, area
