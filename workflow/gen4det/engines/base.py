"""What the workflow knows of an engine: fit (optional), plan, synthesize. Nothing else.

A method `<name>` lives in `gen4det/engines/<name>/` and brings two names that are found by convention:
`settings.py: Settings` (an EngineSettings; pydantic only, no torch) and `engine.py: Engine` (a subclass of
the class below).
Adding an engine touches neither this file nor any rule.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.settings import EngineSettings

if TYPE_CHECKING:
    import numpy as np

    from gen4det.data.datasets import Dataset


@dataclass
class Instance:
    """One labelled object of a generated image."""

    category_id: int
    bbox: list[float]
    """[x, y, width, height] in pixels of the image, COCO convention."""
    rle: dict | None = None
    """COCO run-length mask of the size of the image ({"size": [H, W], "counts": str}); None: box only."""
    score: float | None = None
    """Confidence in [0, 1] of the engine's own labeller; None where labels are given by construction."""
    real: bool = False
    """Its pixels are those of a real image, so that there is nothing to doubt about the label."""
    crowd: bool = False
    """A region to ignore rather than an object (`iscrowd` of COCO)."""


@dataclass
class Generated:
    """One generated image with its labels; every manifest row yields exactly one."""

    row: dict
    """The manifest row it was made from."""
    image: "np.ndarray"
    """uint8 (H, W, 3) RGB."""
    instances: list[Instance] = field(default_factory=list)
    rejected: list[dict] = field(default_factory=list)
    """What was not labelled: {"reason": one line, "category_id": int, "bbox": [x, y, w, h]}."""
    keep: bool = True
    """False: the engine's own rules drop the image; it is stored, but not offered for training."""


class Engine(ABC):
    """A data engine.

    Args:
        settings: the method's own settings (science only: nothing here depends on machine or sharding).
        foundation: where the pretrained models are.
        run_seed: seed of the run; engines derive one seed per image from it with `provenance.seed_for`.
        device: torch device of the models.
        workers: processes for CPU work beside generation; 0 does it in this process. Never changes results.
        model: what `fit` wrote; required by engines with `needs_fit`.
    """

    needs_fit: ClassVar[bool] = False
    """Whether `fit` must have run before `synthesize`."""
    unet_calls: int = 0
    """U-Net evaluations so far, of engines that count them; goes to the run's record."""

    def __init__(
        self,
        settings: EngineSettings,
        foundation: FoundationSettings,
        run_seed: int,
        *,
        device: str = "cpu",
        workers: int = 0,
        model: str | Path | None = None,
    ):
        self.settings = settings
        self.foundation = foundation
        self.run_seed = run_seed
        self.device = device
        self.workers = workers
        self.model = None if model is None else Path(model)

    def fit(self, dataset: "Dataset", work_dir: Path, output: Path) -> None:
        """Learn from the training split.

        Args:
            work_dir: kept between calls; checkpoints and a fingerprint of the settings live here, so that a
                killed run resumes and a foreign checkpoint is refused.
            output: written atomically at the end; later handed to the constructor as `model`.
        """
        raise InputError(f"{type(self).__module__}: this engine is training-free and has nothing to fit")

    @abstractmethod
    def plan(self, dataset: "Dataset") -> list[dict]:
        """Decide what to draw, without a GPU and without weights beyond the tokenizer.

        Returns:
            Manifest rows, JSON-serialisable: {"index": int, position in the manifest; "batch": int, counting
            from 0, not decreasing from row to row; "seed": int in [0, 2**63); and the engine's own keys}.
            Rows that share "batch" are always synthesized together, whatever the shard, so that results are
            byte-identical for any number of shards.
        """

    @abstractmethod
    def synthesize(self, dataset: "Dataset", batches: Iterable[list[dict]]) -> Iterator[list[Generated]]:
        """Draw images and label them.

        Args:
            batches: each a complete list of the rows of one batch, in manifest order. Consumed lazily.

        Yields:
            For each batch, in order, one `Generated` per row, in row order. An engine may read ahead (label
            one batch while the next is drawn) but never lets one batch influence another.
        """


def engine_module(method: str, module: str) -> str:
    """Dotted name of a module of a method ("settings" or "engine"), for imports and code hashes.

    Raises:
        InputError: there is no such method.
    """
    if method not in known_methods():
        raise InputError(f"method: no engine is called {method!r}; engines: {', '.join(known_methods())}")
    return f"gen4det.engines.{method}.{module}"


def known_methods() -> list[str]:
    """Names of the methods that have a room in gen4det/engines."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/settings.py"))


def engine_settings(method: str, values: dict, *, source: str | Path) -> EngineSettings:
    """Typed settings of a method; imports no torch.

    Raises:
        InputError: unknown method, or one line for the first bad setting.
    """
    model = importlib.import_module(engine_module(method, "settings")).Settings
    return parse_settings(model, values, source=source)


def load_engine(
    settings: EngineSettings,
    foundation: FoundationSettings,
    run_seed: int,
    *,
    device: str = "cpu",
    workers: int = 0,
    model: str | Path | None = None,
) -> Engine:
    """The engine that `settings.method` names.

    Raises:
        InputError: unknown method, or a model is missing that the method has to fit first.
    """
    kind = importlib.import_module(engine_module(settings.method, "engine")).Engine
    return kind(settings, foundation, run_seed, device=device, workers=workers, model=model)
