"""Settings of the judge of what a generator draws for a data engine. Pydantic only.

Apart from the settings of the miniature's data sets, so that a rendered data set does not depend on these.
"""

from typing import Annotated

from pydantic import Field

from gen4det.core.settings import Settings

Count = Annotated[int, Field(ge=1)]


class CanvasJudge(Settings):
    """A detector trained on renderings alone, and what it is asked."""

    seed: int = 4052
    """Seed of the renderings, apart from those of every detection split and of the corpus."""
    image_size: Annotated[int, Field(ge=64)] = 128
    """Side of the renderings in pixels: that of the detection set's images."""
    object_size: tuple[float, float] = (18, 58)
    """Smallest and largest extent in pixels of an object of the detection set."""
    canvases: Count = 1200
    """Rendered canvases of four objects that the detector is trained on."""
    scenes: Count = 1200
    """Rendered ordinary scenes that it is trained on as well; categories are equally frequent in both."""
    iterations: Count = 1000
    """Length of its training, at the batch size of its config."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.3
    """A detection below this score is no answer."""
    samples: Annotated[int, Field(ge=2)] = 16
    """Pictures of a single object drawn and rendered for each category."""
    steps: Count = 15
    """Steps of DPM-Solver++ for them."""
    guidance: float = 5.0
    """Weight of their classifier-free guidance."""
    repainted_scenes: Annotated[int, Field(ge=0)] = 48
    """Rendered scenes whose objects the inpainting model paints anew, one and all at once."""
