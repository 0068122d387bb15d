"""Settings of the masks that are computed from attention maps.

"official" in a name means: what the authors' released code does; "paper": what the paper says. They differ.
"""

from typing import Annotated, Literal

from pydantic import Field

from gen4det.core.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class BilateralSolverSettings(Settings):
    """Edge refinement by the fast bilateral solver (Barron and Poole, ECCV 2016).

    The three widths are grid cells in pixels (spatial) and in steps of 8-bit YUV (luma, chroma). They belong
    to the size of the region: 16 px suits regions of 384x512 px.
    """

    passes: Annotated[int, Field(ge=0)] = 2
    """Solves in a row, each fed with the binary result of the one before; 0 switches refinement off."""
    sigma_spatial: Positive = 16
    sigma_luma: Positive = 16
    sigma_chroma: Positive = 8
    lam: Positive = 256
    """Weight of smoothness against fidelity to the coarse mask (lambda)."""
    confidence: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Confidence in the coarse mask, the same at every pixel."""
    threshold: Fraction = 0.5
    """A pixel is foreground where the solution exceeds this share of its maximum."""
    bistochastic_iterations: Annotated[int, Field(ge=1)] = 10
    max_iterations: Annotated[int, Field(ge=1)] = 25
    """Limit of the conjugate gradient iterations."""
    tolerance: Positive = 1e-5
    """Conjugate gradient stops at this residual relative to the right-hand side."""
    diagonal_floor: Positive = 1e-5
    """Smallest diagonal entry the Jacobi preconditioner divides by."""


class ComponentSettings(Settings):
    """Which connected components are objects; a region must hold exactly one."""

    connectivity: Literal[4, 8] = 4
    """4: pixels that touch at a corner only are apart; 8: they belong together. The released code asks for 4,
    but the number reaches another parameter of the call: its data are made with 8."""
    reference: Literal["region", "official"] = "region"
    """What limits areas: "region", shares of the region's own area (paper, section 3.3); "official", the
    pixel counts below for regions of every size."""
    min_area_fraction: Fraction = 0.05
    max_area_fraction: Fraction = 0.95
    official_min_area: Annotated[int, Field(ge=0)] = 9830
    """5% of a 384x512 px region."""
    official_max_area: Annotated[int, Field(ge=0)] = 186778
    """95% of a 384x512 px region."""
    min_width_fraction: Fraction = 0.0
    max_width_fraction: Fraction = 1.0
    min_height_fraction: Fraction = 0.0
    max_height_fraction: Fraction = 1.0


class MaskSettings(Settings):
    """From a region's cross-attention maps and its pixels to the object's mask."""

    aggregation: Literal["official", "paper"] = "official"
    """How maps of several resolutions become one heat map; see `heatmaps.aggregate`."""
    fill_rings: bool = False
    """Raise what a ring of attention encloses to the lowest level of the ring, in each map before they are
    combined. Coarse layers may attend to the outline of an object that stands out from its background;
    without this the solver keeps whatever part of the object the ring happens to cover."""
    threshold: Literal["otsu", "simple"] = "otsu"
    simple_threshold: Fraction = 0.3
    """Share of the maximum above which "simple" sees foreground."""
    solver: BilateralSolverSettings = BilateralSolverSettings()
    components: ComponentSettings = ComponentSettings()
