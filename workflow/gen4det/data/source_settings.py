"""Settings of data that are neither rendered nor downloaded: a user's own photographs, subsets of others.

Apart from the other sources, so that the code hash of these stages does not depend on them.
"""

from typing import Annotated, Literal

from pydantic import Field

from gen4det.core.settings import Settings

WhiteLevel = Annotated[int, Field(ge=1, le=65535)]
"""Value of 16 bits that is shown as white."""


class PhotographsSplit(Settings):
    """One split of a user's own data."""

    annotations: str
    """Annotation file in the layout of COCO or LVIS v1."""
    images: str
    """Folder, or stored zip, below which the annotated file names are found."""


class PhotographsDataset(Settings):
    """A user's own photographs; they stay where they are."""

    source: Literal["photographs"]
    """Where the data come from."""
    format: Literal["lvis", "coco"]
    """Protocol of the evaluation. A COCO-style file serves as lvis, too: groups are then counted, and the
    annotations are taken to be exhaustive."""
    train: PhotographsSplit
    """Training split."""
    val: PhotographsSplit
    """Validation split, of the same categories."""
    sixteen_bit: Literal["refuse", "full-range"] | WhiteLevel = "refuse"
    """PNG and TIFF of 16 bits per channel, grey and colour alike. "full-range": 65535 becomes 255. A number:
    this value and all above become 255, e.g. 4095 for sensors of 12 bits. 0 stays 0."""
    allow_empty_categories: bool = False
    """Whether categories without training images are a warning instead of an error."""


class SubsetDataset(Settings):
    """Some of the training images of another data set, with the same validation: for studies of scarce data.

    The subsets of one data set and seed are nested: each holds all images of every smaller one.
    """

    source: Literal["subset"]
    """Where the data come from."""
    of: str
    """The other data set, by its name in the scale file."""
    share: float = Field(gt=0, le=1)
    """Share of its training images; at least one image."""
    seed: int = Field(0, ge=0)
    """Seed of the choice."""
