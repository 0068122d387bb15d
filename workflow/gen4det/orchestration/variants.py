"""Engines and variants as config/engines/*.yaml has them: inheritance, changes by scale, shared steps."""

from dataclasses import dataclass
from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings, suggest
from gen4det.core.yaml_files import merge, read_yaml, shown
from gen4det.engines.base import engine_settings
from gen4det.engines.settings import EngineSettings
from gen4det.engines.steps import Steps
from gen4det.filters.settings import FilterSettings

Written = dict[str, tuple[str, dict]]
"""Every variant by name: the file it is written in, and what is written there."""


@dataclass(frozen=True)
class Variant:
    """One variant of an engine with everything inherited and overridden."""

    name: str
    base: str | None
    settings: EngineSettings
    filter: FilterSettings
    owner: dict[str, str]
    """Step -> the variant whose result it uses: the farthest ancestor with equal settings for this step and
    for all that it reads; itself, where no ancestor has them."""

    @property
    def steps(self) -> Steps:
        """What the method does."""
        return self.settings.checked_steps()

    @property
    def draws_plan_of(self) -> str | None:
        """The variant whose manifest says what this one draws; None: its own."""
        field = self.steps.draw.manifest_of
        return getattr(self.settings, field) if field else None

    @property
    def has_layout(self) -> bool:
        """Whether the plan says which objects are drawn where, and not a labeller afterwards."""
        return self.steps.label is None and not self.steps.draw.detectors

    @property
    def labels_of(self) -> str:
        """The variant that labels the images: by its label step, else as it draws them."""
        return self.images if self.steps.label is None else self.owner[self.steps.label.name]

    @property
    def images(self) -> str:
        """The variant that draws the images."""
        return self.owner[self.steps.draw.name]


def _owners(name: str, settings: EngineSettings, parent: Variant | None) -> dict[str, str]:
    """`Variant.owner`."""
    steps = settings.checked_steps()
    if parent is None or type(parent.settings) is not type(settings):
        return {step.name: name for step in steps.in_order}
    alike = {step.name for step in steps.in_order if parent.settings.section(step) == settings.section(step)}
    return {
        step.name: parent.owner[step.name]
        if all(needed.name in alike for needed in steps.upstream(step))
        else name
        for step in steps.in_order
    }


def read_variants(folder: Path) -> Written:
    """Every variant of config/engines by name: the file it is written in, and what is written there."""
    variants: Written = {}
    for path in sorted(folder.glob("*.yaml")):
        file = shown(path)
        for name, values in read_yaml(path).items():
            if name in variants:
                raise InputError(f"{file}: {name}: already defined in {variants[name][0]}")
            if not isinstance(values, dict):
                raise InputError(f"{file}: {name}: expected settings, found {values!r}")
            variants[name] = (file, values)
    return variants


def _resolve(
    name: str, variants: Written, changes: dict[str, dict], chain: tuple[str, ...] = ()
) -> tuple[dict, Variant]:
    """A variant as a plain mapping and checked: its base, its own keys, the scale's changes, in turn.

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
        inherited, parent = _resolve(base, variants, changes, (*chain, name))
    else:
        known = suggest(str(base), variants)
        raise InputError(f"{file}: {name}.base: no such engine {base!r}{known}")
    values = merge(merge(inherited, own), changes.get(name, {}))
    drawing = {key: value for key, value in values.items() if key != "filter"}
    if "method" not in drawing:
        raise InputError(f"{file}: {name}.method: required key is missing (or give a `base`)")
    settings = engine_settings(drawing["method"], drawing, source=f"{file}: {name}")
    chosen = parse_settings(FilterSettings, values.get("filter", {}), source=f"{file}: {name}.filter")
    return values, Variant(name, base, settings, chosen, _owners(name, settings, parent))


def load_engines(
    used: list[str], changes: dict[str, dict], variants: Written, *, source: str
) -> dict[str, Variant]:
    """The variants of this run and those they share steps with.

    Args:
        used: engines that the studies of the run name.
        changes: what the scale changes, by name of the variant.
        source: name of the scale file in errors.

    All variants must be sound as they are written; only those of this run must be so at this scale, too:
    sizes in pixels that suit Stable Diffusion need not fit the miniature.
    """
    for name in variants:
        _resolve(name, variants, changes={})
    for name in changes:
        if name not in variants:
            raise InputError(f"{source}: engines.{name}: no such engine{suggest(name, variants)}")
    engines: dict[str, Variant] = {}
    wanted = [*used, *changes]
    while wanted:
        name = wanted.pop(0)
        if name not in engines:
            engines[name] = _resolve(name, variants, changes)[1]
            wanted += engines[name].owner.values()
            wanted += [_planner_of(engines[name], variants, changes)] if engines[name].draws_plan_of else []
    return engines


def _planner_of(variant: Variant, variants: Written, changes: dict[str, dict]) -> str:
    """The variant whose manifest another one draws.

    Raises:
        InputError: there is none of that name, or it plans nothing itself.
    """
    name, where = variant.draws_plan_of, f"{variants[variant.name][0]}: {variant.name}"
    field = variant.steps.draw.manifest_of
    if name not in variants:
        raise InputError(f"{where}.{field}: no such engine {name!r}{suggest(name, variants)}")
    if _resolve(name, variants, changes)[1].draws_plan_of:
        raise InputError(f"{where}.{field}: {name!r} plans nothing itself, it draws what another one planned")
    return name
