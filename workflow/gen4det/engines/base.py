"""What the workflow knows of an engine: the steps it declares, and one class for each. Nothing else.

A method `<name>` lives in `gen4det/engines/<name>/`. Its `settings.py: Settings` (an EngineSettings; pydantic
only, no torch) declares the steps; each step has a module with a class of a fixed name:

    plan.py: Planner           draw.py: Drawer           of the draw step
    fit_<step>.py: Fit         of each fit step
    label.py: Labeller         of the label step

Adding an engine touches neither this file nor any rule.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.settings import EngineSettings
from gen4det.engines.steps import DETECTORS, Step

if TYPE_CHECKING:
    import numpy as np

    from gen4det.data.datasets import Dataset
    from gen4det.training.stop import Deadline

MANIFEST = "manifest"
"""Name of another variant's manifest among what a step reads."""
CLASSES = {"plan": "Planner", "draw": "Drawer", "fit": "Fit", "label": "Labeller"}
"""Name of the class in a module, by the kind of its step; a draw step has a module `plan` beside `draw`."""


# --- what a step is handed ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """The data set, and what the steps that this one reads have made."""

    dataset: "Dataset"
    models: dict[str, Path] = field(default_factory=dict)
    """Fitted models: step -> folder."""
    shards: dict[str, list[Path]] = field(default_factory=dict)
    """Label files of the drawn shards, the images beside them: step -> files in the order of the shards."""
    detections: dict[str, list[Path]] = field(default_factory=dict)
    """What detectors found: "dataset" or the draw step -> files, of shards in their order."""
    detectors: dict[str, Path] = field(default_factory=dict)
    """Weights of trained detectors, by the field of the settings that names them."""
    manifest: Path | None = None
    """What another variant planned, for steps that draw it."""


class StepWorker:
    """Base of what does the work of a step.

    Args:
        settings: the fields of the method's settings that the step reads (science only: nothing here depends
            on machine or sharding). Any other field is an AttributeError: it is in no hash of this job.
        foundation: where the pretrained models are.
        run_seed: seed of the run; images derive their own from it with `provenance.seed_for`.
        inputs: the data set and the results of earlier steps.
        device: torch device of the models.
        workers: processes for CPU work beside the GPU; 0 does it in this process. Never changes results.
    """

    def __init__(
        self,
        settings: EngineSettings,
        foundation: FoundationSettings,
        run_seed: int,
        inputs: Inputs,
        *,
        device: str = "cpu",
        workers: int = 0,
    ):
        self.settings = settings
        self.foundation = foundation
        self.run_seed = run_seed
        self.inputs = inputs
        self.device = device
        self.workers = workers

    @property
    def dataset(self) -> "Dataset":
        """The data set that is drawn for."""
        return self.inputs.dataset


# --- what is drawn ------------------------------------------------------------------------------------


@dataclass
class Instance:
    """One labelled object of a generated image."""

    category_id: int
    bbox: list[float]
    """[x, y, width, height] in pixels of the image, COCO convention."""
    rle: dict | None = None
    """COCO run-length mask of the size of the image ({"size": [H, W], "counts": str}); None: box only."""
    score: float | None = None
    """Confidence in [0, 1] of the labeller; None where labels are given by construction."""
    labeller: str | None = None
    """Which labeller it comes from, where an engine has several; filters may have a threshold for each."""
    untouched: bool = False
    """Its pixels are those of a real image, so there is nothing to doubt about the label. Stored sets call it
    "real"."""
    crowd: bool = False
    """A region to ignore rather than an object (`iscrowd` of COCO)."""


@dataclass
class Labels:
    """Labels of one generated image."""

    instances: list[Instance] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    """What was not labelled: {"reason": one line, "category_id": int, "bbox": [x, y, w, h]}."""
    keep: bool = True
    """False: the engine's own rules drop the image; it is stored, but not offered for training."""


@dataclass
class Generated:
    """One generated image with its labels; every manifest row yields exactly one."""

    row: dict
    """The manifest row it was made from."""
    image: "np.ndarray"
    """uint8 (H, W, 3) RGB."""
    instances: list[Instance] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    keep: bool = True
    """These three as in `Labels`."""
    about: dict = field(default_factory=dict)
    """Facts for the image's record, JSON-serialisable; e.g. the id of its reference image."""
    arrays: dict[str, "np.ndarray"] = field(default_factory=dict)
    """Arrays to keep for later steps, by name, e.g. latents; stored beside the image."""

    @property
    def labels(self) -> Labels:
        """Its labels alone."""
        return Labels(self.instances, self.rejected, self.keep)


@dataclass(frozen=True)
class Drawn:
    """One image as a label step finds it in a shard."""

    row: dict
    """The manifest row it was made from."""
    record: dict
    """Its record: id, file_name, height, width, and what the draw step said about it."""
    annotations: list[dict]
    """Labels that the draw step gave it, COCO records."""
    image: Callable[[], "np.ndarray"]
    """Reads the image, uint8 (H, W, 3)."""
    array: Callable[[str], "np.ndarray"]
    """Reads a stored array by name. Raises InputError where the shard has none of that name."""


# --- one class for each kind of step ------------------------------------------------------------------


class Planner(StepWorker, ABC):
    """Decides what the draw step draws, without a GPU and without weights beyond the tokenizer."""

    @abstractmethod
    def plan(self) -> list[dict]:
        """Decide what to draw.

        Returns:
            Manifest rows, JSON-serialisable: {"index": int, position in the manifest; "batch": int, counting
            from 0, not decreasing from row to row; "seed": int in [0, 2**63); and the engine's own keys}.
            Rows that share "batch" are always drawn together, whatever the shard, so that results are
            byte-identical for any number of shards.
        """


class Drawer(StepWorker, ABC):
    """Draws images from manifest rows."""

    unet_calls: int = 0
    """U-Net evaluations so far, of engines that count them; goes to the run's record."""

    @abstractmethod
    def synthesize(self, batches: Iterable[list[dict]]) -> Iterator[list[Generated]]:
        """Draw images and, where the engine can do that at once, label them.

        Args:
            batches: each a complete list of the rows of one batch, in manifest order. Consumed lazily.

        Yields:
            For each batch, in order, one `Generated` per row, in row order. An engine may read ahead (label
            one batch while the next is drawn) but never lets one batch influence another.
        """


class Fit(StepWorker, ABC):
    """Learns a model."""

    @abstractmethod
    def fit(self, work: Path, fingerprint: dict, output: Path, stop: "Deadline") -> dict:
        """Learn, and write the model.

        Args:
            work: folder kept between calls; checkpoints live here, with the fingerprint, so that a killed
                run resumes and a foreign checkpoint is refused (`training.work_folder`).
            fingerprint: all that the model depends on.
            output: folder to write the model to, in the layout of its library, e.g. a diffusers pipeline.
            stop: asked between steps; where it is reached, progress is saved and nothing is written.

        Returns:
            Facts for the run record. Whether the fit is finished says `output`: it exists then. The work
            folder, with `losses.csv` of the training loop, is left to the stage.
        """


class Labeller(StepWorker, ABC):
    """Labels what a draw step has stored."""

    @abstractmethod
    def label(self, batches: Iterable[list[Drawn]]) -> Iterator[list[Labels]]:
        """Label images.

        Args:
            batches: the images of one batch of the manifest each, in manifest order. Consumed lazily.

        Yields:
            For each batch, in order, the `Labels` of its images. No batch influences another.
        """


# --- finding them -------------------------------------------------------------------------------------


def known_methods() -> list[str]:
    """Names of the methods that have a room in gen4det/engines."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/settings.py"))


def engine_module(method: str, module: str) -> str:
    """Dotted name of a module of a method ("settings", "plan", "draw", ...), for imports and code hashes.

    Raises:
        InputError: there is no such method.
    """
    if method not in known_methods():
        raise InputError(f"method: no engine is called {method!r}; engines: {', '.join(known_methods())}")
    return f"gen4det.engines.{method}.{module}"


def settings_class(method: str) -> type[EngineSettings]:
    """Typed settings of a method; imports no torch.

    Raises:
        InputError: there is no such method, or its steps contradict themselves.
    """
    model = importlib.import_module(engine_module(method, "settings")).Settings
    try:
        model.checked_steps()
    except ValueError as error:
        raise InputError(f"{model.__module__}: {error}") from None
    return model


def engine_settings(method: str, values: dict, *, source: str | Path) -> EngineSettings:
    """Typed settings of a method.

    Raises:
        InputError: unknown method, or one line for the first bad setting.
    """
    return parse_settings(settings_class(method), values, source=source)


def load_worker(module: str, kind: str, *arguments: object, **options: object) -> StepWorker:
    """What does the work of a step.

    Args:
        module: dotted name, see `engine_module`.
        kind: "plan", "draw", "fit" or "label".
        arguments, options: of `StepWorker`.
    """
    return getattr(importlib.import_module(module), CLASSES[kind])(*arguments, **options)


def check_inputs(step: Step, settings: EngineSettings, inputs: Inputs) -> None:
    """Refuse to begin a step without what it reads.

    Args:
        settings: the fields that the step reads; a detector that they do not ask is not missed.

    Raises:
        InputError: a fitted model, drawn images or detections are not there.
    """
    given = inputs.models.keys() | inputs.shards.keys()
    for name in step.reads:
        if name not in given:
            raise InputError(f"step {step.name!r} reads what step {name!r} made: give --reads {name}=PATH")
    if step.manifest_of and inputs.manifest is None:
        raise InputError(f"step {step.name!r} reads a manifest: give --reads {MANIFEST}=FILE")
    for asked in step.detections:
        if getattr(settings, asked.setting) is not None and asked.on not in inputs.detections:
            raise InputError(f"step {step.name!r} reads detections: give --reads detections.{asked.on}=FILE")
    for name in step.detectors:
        if name not in inputs.detectors:
            raise InputError(f"step {step.name!r} reads a detector: give --reads {DETECTORS}{name}=FILE")
