"""YAML files of settings: read strictly, merged key by key."""

from pathlib import Path

import yaml

from gen4det.core.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys: the later one would silently win."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict:
    """A YAML file that holds a mapping.

    Raises:
        InputError: missing file, broken YAML (with line), a key given twice, or not a mapping.
    """
    try:
        values = yaml.load(path.read_text(), Loader=_Loader)  # a SafeLoader: builds plain values only
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{path}: {line}{error.problem}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


def merge(base: dict, changes: dict) -> dict:
    """`base` with `changes`: mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def shown(path: Path) -> str:
    """Path as the user knows it: relative to where they stand if it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
