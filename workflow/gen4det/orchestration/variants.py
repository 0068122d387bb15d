"""Engines and variants as config/engines/*.yaml has them: inheritance, changes by scale, shared images."""

from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings, suggest
from gen4det.core.yaml_files import merge, read_yaml, shown
from gen4det.engines.base import engine_settings
from gen4det.engines.settings import EngineSettings
from gen4det.filters.settings import FilterSettings

Variants = dict[str, tuple[str, dict]]
"""Every variant by name: the file it is written in, and what is written there."""


@dataclass(frozen=True)
class Engine:
    """One engine variant with everything inherited and overridden."""

    name: str
    base: str | None
    settings: EngineSettings
    filter: FilterSettings
    images: str
    """The variant that draws the images: itself, or the ancestor it shares all of generation with."""


def read_variants(folder: Path) -> Variants:
    """Every variant of config/engines by name: the file it is written in, and what is written there."""
    variants: Variants = {}
    for path in sorted(folder.glob("*.yaml")):
        file = shown(path)
        for name, values in read_yaml(path).items():
            if name in variants:
                raise InputError(f"{file}: {name}: already defined in {variants[name][0]}")
            if not isinstance(values, dict):
                raise InputError(f"{file}: {name}: expected settings, found {values!r}")
            variants[name] = (file, values)
    return variants


def _resolve_engine(
    name: str, variants: Variants, changes: dict[str, dict], chain: tuple[str, ...] = ()
) -> tuple[dict, Engine]:
    """A variant as a plain mapping and as an Engine: its base, its own keys, the scale's changes, in turn.

    Args:
        changes: what the scale changes, by name of the variant.
        chain: variants that led here by `base`.
    """
    file, written = variants[name]
    if name in chain:
        circle = " -> ".join((*chain[chain.index(name) :], name))
        raise InputError(f"{file}: {name}.base: inherits from itself: {circle}")
    own = dict(written)
    base = own.pop("base", None)
    if base is None:
        inherited, parent = {}, None
    elif base in variants:
        inherited, parent = _resolve_engine(base, variants, changes, (*chain, name))
    else:
        known = suggest(str(base), variants)
        raise InputError(f"{file}: {name}.base: no such engine {base!r}{known}")
    values = merge(merge(inherited, own), changes.get(name, {}))
    drawing = {key: value for key, value in values.items() if key != "filter"}
    if "method" not in drawing:
        raise InputError(f"{file}: {name}.method: required key is missing (or give a `base`)")
    settings = engine_settings(drawing["method"], drawing, source=f"{file}: {name}")
    chosen = parse_settings(FilterSettings, values.get("filter", {}), source=f"{file}: {name}.filter")
    shares = parent is not None and parent.settings == settings
    return values, Engine(name, base, settings, chosen, parent.images if shares else name)


def load_engines(
    used: list[str], changes: dict[str, dict], variants: Variants, *, source: str
) -> dict[str, Engine]:
    """The engines of this run and what they share images with.

    Args:
        used: engines that the studies of the run name.
        changes: what the scale changes, by name of the variant.
        source: name of the scale file in errors.

    All variants must be sound as they are written; only those of this run must be so at this scale, too:
    sizes in pixels that suit Stable Diffusion need not fit the miniature.
    """
    for name in variants:
        _resolve_engine(name, variants, changes={})
    for name in changes:
        if name not in variants:
            raise InputError(f"{source}: engines.{name}: no such engine{suggest(name, variants)}")
    engines: dict[str, Engine] = {}
    for name in (*used, *changes):
        while name is not None and name not in engines:
            engines[name] = _resolve_engine(name, variants, changes)[1]
            name = engines[name].images if engines[name].images != name else None
    return engines
