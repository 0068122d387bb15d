"""The draw step of an engine, planner and drawer together, for tests that are handed data sets one by one."""

from collections.abc import Iterable, Iterator

from gen4det.data.datasets import Dataset
from gen4det.diffusion.settings import FoundationSettings
from gen4det.engines.base import Drawer, Generated, Inputs, engine_module, load_worker
from gen4det.engines.settings import EngineSettings


class DrawStep:
    """Plans and draws on the CPU; `drawer` loads its models once for all data sets."""

    def __init__(self, settings: EngineSettings, foundation: FoundationSettings, workers: int = 0):
        self.settings, self.foundation = settings, foundation
        self.drawer: Drawer = self._load("draw", Inputs(None), workers=workers)

    def _load(self, kind: str, inputs: Inputs, **options):
        module = engine_module(self.settings.method, kind)
        return load_worker(module, kind, self.settings, self.foundation, 0, inputs, **options)

    def plan(self, dataset: Dataset) -> list[dict]:
        """Manifest rows."""
        return self._load("plan", Inputs(dataset)).plan()

    def synthesize(self, dataset: Dataset, batches: Iterable[list[dict]]) -> Iterator[list[Generated]]:
        """What the drawer makes of them."""
        self.drawer.inputs = Inputs(dataset)
        return self.drawer.synthesize(batches)

    @property
    def unet_calls(self) -> int:
        """U-Net evaluations so far."""
        return self.drawer.unet_calls
