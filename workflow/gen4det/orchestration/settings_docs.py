"""Writes what the typed settings say about themselves: JSON schemas for editors, a reference for readers.

python -m gen4det.orchestration.settings_docs            writes config/schema/ and config/reference.yaml
python -m gen4det.orchestration.settings_docs --check    names those that no longer match; exit status 1
"""

import argparse
import importlib
import json
import sys
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gen4det.engines.base import engine_module, known_methods
from gen4det.engines.settings import EngineSettings
from gen4det.evaluation.study_settings import GallerySettings
from gen4det.filters.settings import FilterSettings
from gen4det.orchestration.costs.settings import Costs
from gen4det.orchestration.scale import Config
from gen4det.orchestration.studies import Study

WIDTH = 100
HEAD = """\
# Every setting with its meaning and its default; what has no default is commented out and must be given.
# Generated from the typed settings by `make schema`; edit those, not this file.
"""


def generated_files() -> dict[str, str]:
    """Text of each generated file by its path in the repository."""
    schemas = {"config": Config.model_json_schema(), "study": _study_schema(), "engines": _engines_schema()}
    schemas["costs"] = Costs.model_json_schema()
    files = {
        f"config/schema/{name}.json": json.dumps(schema, indent=1) + "\n" for name, schema in schemas.items()
    }
    return files | {"config/reference.yaml": reference()}


# --- schemas --------------------------------------------------------------------------------------


def _engine_models() -> dict[str, type[EngineSettings]]:
    methods = known_methods()
    return {method: importlib.import_module(engine_module(method, "settings")).Settings for method in methods}


def _study_schema() -> dict:
    schema = Study.model_json_schema()
    gallery = GallerySettings.model_json_schema()
    for given in ("title", "scale"):
        del gallery["properties"][given]
    gallery["required"] = []
    schema["properties"]["gallery"] = gallery
    return schema


def _engines_schema() -> dict:
    """Schema of a file of engine variants. Nothing is required: a variant may inherit it."""
    definitions: dict[str, dict] = {}
    variants = []
    for method, model in _engine_models().items():
        variant = _with_own_sections(model.model_json_schema(), method, definitions)
        definitions |= variant.pop("$defs", {})
        variant.pop("required", None)
        variant["properties"]["base"] = {
            "type": "string",
            "description": "Variant that this one inherits from.",
        }
        variant["properties"]["filter"] = {"$ref": "#/$defs/FilterSettings"}
        variants.append(variant)
    chosen = FilterSettings.model_json_schema()
    definitions |= chosen.pop("$defs", {})
    definitions["FilterSettings"] = chosen
    return {"type": "object", "additionalProperties": {"anyOf": variants}, "$defs": definitions}


def _with_own_sections(schema: dict, method: str, known: dict[str, dict]) -> dict:
    """The schema of an engine, sections that another engine has otherwise under the same name renamed."""
    text = json.dumps(schema)
    for name, definition in schema.get("$defs", {}).items():
        if known.get(name, definition) != definition:
            text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/{method}.{name}"')
            text = text.replace(f'"{name}": {{', f'"{method}.{name}": {{')
    return json.loads(text)


# --- reference ------------------------------------------------------------------------------------


def reference() -> str:
    """All settings as documented YAML, one document per kind of file."""
    documents = [
        ["# A scale: config/config.yaml, config/paper.yaml, config/photographs.yaml, or a file of your own."],
        ["# A study: config/studies/<study>.yaml."],
        ["# What a GPU does and files take, for `make plan`: config/costs/<gpu>.yaml.", *_keys(Costs)],
    ]
    documents[0] += _keys(Config)
    documents[1] += _keys(Study, without=("gallery",))
    documents[1] += ["# What the page of generated images shows.", "gallery:"]
    documents[1] += _keys(GallerySettings, depth=1, without=("title", "scale"))
    for method, model in _engine_models().items():
        lines = [
            f"# A variant with method {method}, in any file config/engines/*.yaml.",
            "# `base: <other variant>` inherits that variant's settings; only what differs is given then.",
            "<name>:",
            *_keys(model, depth=1),
            "  # Which labels are offered for training. Variants that differ only here share their images.",
            "  filter:",
            *_keys(FilterSettings, depth=2),
        ]
        documents.append(lines)
    return HEAD + "".join("---\n" + "\n".join(lines) + "\n" for lines in documents)


def _keys(
    model: type[BaseModel],
    values: BaseModel | None = None,
    *,
    depth: int = 0,
    off: bool = False,
    without: tuple[str, ...] = (),
    seen: set[type] | None = None,
) -> list[str]:
    """Lines for the keys of `model`: docstring, then the key with its value in `values`, else its default.

    Lines that are `off` are comments: keys behind "# ", their docstrings behind "## ". Models in
    `seen` appear without docstrings; it grows on the way.
    """
    seen = set() if seen is None else seen
    is_new = model not in seen
    seen.add(model)
    lines = []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        value = _default(field) if values is None else getattr(values, name)
        if is_new:
            lines += _comment(field, depth, off=off)
        if isinstance(value, BaseModel):
            lines.append(_line(f"{name}:", depth, off))
            lines += _keys(type(value), value, depth=depth + 1, off=off, seen=seen)
            continue
        nested = _models_in(field.annotation) if value in (PydanticUndefined, None, {}) else []
        missing = value is PydanticUndefined
        if not missing:
            lines.append(_line(f"{name}: {_inline(value)}", depth, off))
        elif nested and not nested[0][0]:
            lines.append(_line(f"{name}:", depth, off))
        else:
            lines.append(_line(f"{name}: (required)" if not nested else f"{name}:", depth, True))
        for key, child in nested:
            hidden = off or bool(key) or not missing
            if key:
                lines.append(_line(f"{key}:", depth + 1, True))
            lines += _keys(child, depth=depth + 1 + bool(key), off=hidden, seen=seen)
    return lines


def _default(field: FieldInfo) -> Any:
    """Default of a field; a required one with a single choice, like the tag of a union, has that."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return choices[0] if field.is_required() and len(choices) == 1 else field.get_default()


def _line(text: str, depth: int, off: bool) -> str:
    return f"# {'  ' * depth}{text}" if off else f"{'  ' * depth}{text}"


def _comment(field: FieldInfo, depth: int, *, off: bool) -> list[str]:
    mark = "##" if off else "#"
    text = " ".join(" ".join(part for part in (field.description, _limits(field.annotation)) if part).split())
    indent = "  " * depth
    prefix = f"{mark} {indent}" if off else f"{indent}{mark} "
    return [prefix + line for line in textwrap.wrap(text, WIDTH - len(prefix))]


def _limits(annotation: Any) -> str:
    """The choices of a Literal, in words."""
    choices = [
        value for kind in _alternatives(annotation) if get_origin(kind) is Literal for value in get_args(kind)
    ]
    return f"One of: {', '.join(map(str, choices))}." if len(choices) > 1 else ""


def _models_in(annotation: Any) -> list[tuple[str, type[BaseModel]]]:
    """Settings that may stand at a key, each with the placeholder of the key it stands below, or with ""."""
    found = []
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append(("", kind))
        elif get_origin(kind) is dict:
            found += [("<name>", model) for _, model in _models_in(get_args(kind)[1])]
    return found


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for option in get_args(annotation) for kind in _alternatives(option)]
    return [annotation]


def _inline(value: Any) -> str:
    plain = json.loads(json.dumps(value))
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


# --- command line ---------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, report differences")
    arguments = parser.parse_args()
    differing = []
    for name, text in generated_files().items():
        path = Path(name)
        if not path.is_file() or path.read_text() != text:
            differing.append(name)
            if not arguments.check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                print(f"written: {name}")
    if arguments.check and differing:
        sys.exit(f"out of date: {', '.join(differing)}; run `make schema`")


if __name__ == "__main__":
    main()
