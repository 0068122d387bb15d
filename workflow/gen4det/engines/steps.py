"""What a method declares: its named steps, in order. Jobs, hashes, sharing, paths and the DAG follow.

    class Settings(EngineSettings):
        steps = (
            Step("generator", "fit", settings=("generator",), models=("diffusion",)),
            Step("images", "draw", reads=("generator",), settings=("images",)),
            Step("head", "fit", reads=("generator", "images"), settings=("head",), detections=(...)),
            Step("labels", "label", reads=("images", "head"), settings=("labels",)),
        )

reads as: fit a generator, draw with it, fit a head on what was drawn, label with the head what was drawn.
Every step may read the data set. In the method's room a fit step has the module `fit_<name>`, a label step
`label`, and a draw step two, `plan` and `draw`. The code hash of a job follows the imports of its module.

Two variants share a step if its settings and those of all it reads, directly or not, are equal.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import create_model

from gen4det.core.settings import Settings

Kind = Literal["fit", "draw", "label"]

ON_REAL_IMAGES = "dataset"
"""`Detections.on` of a detector's answers about the real training images."""

IMAGE_FORMAT = "image_format"
"""Field of the settings of every method; the draw step reads it."""


@dataclass(frozen=True)
class Detections:
    """What a detector of real images finds, as an input of a step."""

    on: str
    """The draw step whose images it looks at, or "dataset": the real training images."""
    setting: str
    """Field of the method's settings, an `AskedDetector`, that says which detector; null asks none."""


DETECTORS = "detectors."
"""Begins the names of trained detectors among what a step reads; their settings' field follows."""


@dataclass(frozen=True)
class Step:
    """One step of a method.

    Raises:
        ValueError: a name that cannot be part of a path, or a step that reads itself.
    """

    name: str
    """What other steps call it; part of its path."""
    kind: Kind
    """"fit" learns a model, "draw" generates images and may label them, "label" labels what was drawn."""
    reads: tuple[str, ...] = ()
    """Names of earlier steps: a fitted model, the images that a step drew."""
    settings: tuple[str, ...] | None = None
    """Fields of the method's settings that it reads; None: all that no other step names."""
    models: tuple[str, ...] = ()
    """Which of the run's foundation models it reads; when another one changes, its results stand."""
    detections: tuple[Detections, ...] = ()
    """Detectors whose answers it reads."""
    detectors: tuple[str, ...] = ()
    """Fields of the method's settings, each a `TrainedDetector`, whose weights it reads: detectors of real
    images, trained by the workflow as those of tables are."""
    manifest_of: str | None = None
    """Field of the method's settings that names another variant: the step reads what that one planned."""
    has_losses: bool = True
    """Whether a fit leaves losses (`training.loop` does), of which the report shows a curve."""

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").isalnum() or self.name != self.name.lower():
            raise ValueError(f"step {self.name!r}: lower-case letters, digits and _ only")
        if self.name in self.reads:
            raise ValueError(f"step {self.name!r} reads itself")

    @property
    def module(self) -> str:
        """Name of the module, in the method's room, that does the work."""
        return f"fit_{self.name}" if self.kind == "fit" else self.kind


class Steps:
    """The steps of one method, checked.

    Args:
        steps: in the order of the work.
        fields: names of the fields of the method's settings.
        common: those that every step reads.

    Raises:
        ValueError: steps that cannot be put in order, that name unknown fields, or that are not one draw step
            with at most one label step after it.
    """

    def __init__(self, steps: tuple[Step, ...], fields: set[str], common: set[str]):
        self.in_order = steps
        self._by_name: dict[str, Step] = {}
        for step in steps:
            if step.name in self._by_name:
                raise ValueError(f"step {step.name!r} is declared twice")
            for name in (*step.reads, *(d.on for d in step.detections if d.on != ON_REAL_IMAGES)):
                if name not in self._by_name:
                    known = ", ".join(self._by_name) or "none"
                    raise ValueError(f"step {step.name!r} reads {name!r}; the steps before it: {known}")
            other = () if step.manifest_of is None else (step.manifest_of,)
            asked = (d.setting for d in step.detections)
            for name in (*(step.settings or ()), *asked, *step.detectors, *other):
                if name not in fields:
                    raise ValueError(f"step {step.name!r}: the settings have no field {name!r}")
            self._by_name[step.name] = step
        for kind, least in (("draw", 1), ("label", 0)):
            count = sum(step.kind == kind for step in steps)
            if not least <= count <= 1:
                raise ValueError(
                    f"{count} steps of kind {kind!r}; expected {'one' if least else 'at most one'}"
                )
        named = {field for step in steps for field in step.settings or ()}
        named |= {d.setting for step in steps for d in step.detections}
        named |= {field for step in steps for field in step.detectors}
        self._common = common
        self._rest = fields - named - common - {IMAGE_FORMAT}
        if self._rest and all(step.settings is not None for step in steps):
            raise ValueError(f"no step reads {', '.join(sorted(self._rest))}")

    def __getitem__(self, name: str) -> Step:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def draw(self) -> Step:
        """The step that draws the images."""
        return next(step for step in self.in_order if step.kind == "draw")

    @property
    def label(self) -> Step | None:
        """The step that labels them afterwards, if there is one."""
        return next((step for step in self.in_order if step.kind == "label"), None)

    @property
    def fits(self) -> list[Step]:
        """Those that learn a model."""
        return [step for step in self.in_order if step.kind == "fit"]

    def upstream(self, step: Step) -> list[Step]:
        """The step and all that it reads, directly or not, in the order of the work."""
        needed = {step.name}
        for earlier in reversed(self.in_order):
            if earlier.name in needed:
                needed.update(earlier.reads)
                needed.update(d.on for d in earlier.detections if d.on != ON_REAL_IMAGES)
        return [it for it in self.in_order if it.name in needed]

    def fields(self, step: Step) -> set[str]:
        """Fields of the settings that a step reads, those that all steps read among them."""
        own = self._rest if step.settings is None else set(step.settings)
        if step.kind == "draw":
            own |= {IMAGE_FORMAT}
        return own | {d.setting for d in step.detections} | set(step.detectors) | self._common


def settings_of_step(model: type[Settings], fields: set[str]) -> type[Settings]:
    """A settings class with some fields of another one: what a step may read, and nothing else.

    Where a step reads all fields, it is the class itself, with what that checks across fields.
    """
    if fields == set(model.model_fields):
        return model
    kept = {name: (info.annotation, info) for name, info in model.model_fields.items() if name in fields}
    return create_model(model.__name__, __base__=Settings, __module__=model.__module__, **kept)
