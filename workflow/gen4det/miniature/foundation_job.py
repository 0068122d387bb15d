"""What the parts of the miniature's foundation models have in common: inputs, a work folder, a result."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gen4det.core.provenance import atomic_write
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.training.loop import train
from gen4det.training.stop import Stop


@dataclass(frozen=True)
class FoundationJob:
    """One part in the making.

    Args:
        settings: those that the part names, nothing else.
        inputs: result folders of the parts it reads, by name.
        output: the result folder.
        work: kept between attempts, and removed when it was begun with another fingerprint.
        fingerprint: what the result depends on.
        device: torch device.
        stop: asked after every step.
    """

    settings: FoundationTraining
    inputs: dict[str, Path]
    output: Path
    work: Path
    fingerprint: dict = field(default_factory=dict)
    device: str = "cpu"
    stop: Stop | None = None

    def train(
        self,
        modules: Sequence[torch.nn.Module],
        step_loss: Callable[[int, np.random.Generator], torch.Tensor],
        *,
        name: str = "losses",
        **options: Any,
    ) -> dict[str, Any]:
        """One of its trainings, see `loop.train`; its table of losses is <name>.csv of the result."""
        return train(
            modules,
            step_loss,
            work=self.work / name,
            fingerprint=self.fingerprint,
            seed=self.settings.seed,
            device=self.device,
            stop=self.stop,
            title=self.output.parent.name,
            **options,
        )

    @contextlib.contextmanager
    def result(self) -> Iterator[Path]:
        """The result folder, written as a whole, with the losses of its trainings."""
        with atomic_write(self.output) as folder:
            folder.mkdir()
            yield folder
            for table in sorted(self.work.glob("*/losses.csv")):
                shutil.copyfile(table, folder / f"{table.parent.name}.csv")
