"""Settings of data that are neither rendered nor downloaded: a user's own photographs, subsets of others.

Apart from the other sources, so that the code hash of these stages does not depend on them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
    """A user's own photographs; they stay where they are.

    Given by `folder`, whose layout is recognised, or by `train` and `val`.
    """

    source: Literal["photographs"]
    """Where the data come from."""
    format: Literal["lvis", "coco"] = "coco"
    """Protocol of the evaluation. A COCO-style file serves as lvis, too: groups are then counted, and the
    annotations are taken to be exhaustive."""
    folder: str | None = None
    """Folder with images and annotations in the layout of COCO, LVIS, PASCAL VOC or YOLO."""
    layout: Literal["auto", "coco", "voc", "yolo"] = "auto"
    """Layout of the folder, where it has files of several."""
    first_pixel: Literal["auto", 0, 1] = "auto"
    """PASCAL VOC: number of the first pixel. 1: as VOC itself, last pixel included; 0: edges from 0 on, as
    many tools write them; "auto": 0 if any coordinate is, else 1."""
    train: PhotographsSplit | None = None
    """Training split, in place of a folder."""
    val: PhotographsSplit | None = None
    """Validation split, of the same categories; without one, images of the training split are set apart."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the images set apart for validation, category by category, where the data are one split."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of that choice."""
    on_bad_annotation: Literal["refuse", "drop"] = "refuse"
    """"drop": annotations and images that cannot be used are left out, counted in the log, and written with
    the reason to dropped.json beside dataset.json."""
    sixteen_bit: Literal["refuse", "full-range"] | WhiteLevel = "refuse"
    """PNG and TIFF of 16 bits per channel, grey and colour alike. "full-range": 65535 becomes 255. A number:
    this value and all above become 255, e.g. 4095 for sensors of 12 bits. 0 stays 0."""
    allow_empty_categories: bool = False
    """Whether categories without training images are a warning instead of an error."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.train is None):
            raise ValueError("give either folder, or train (with val, if there is one)")
        if self.folder is not None and self.val is not None:
            raise ValueError("val: the folder has its own; give train and val, or folder alone")
        return self


class DefinedName(Settings):
    """A category by its name and what it is."""

    name: str
    """What prompts say."""
    definition: str = ""
    """What it is, in a few words; prompts of some engines append it."""


class NamesDataset(Settings):
    """Names of categories alone, for engines that need no image; a target is then the set they draw."""

    source: Literal["names"]
    """Where the data come from."""
    format: Literal["lvis", "coco"] = "coco"
    """Layout of the annotations that engines write."""
    names: Annotated[tuple[str | DefinedName, ...], Field(min_length=1)]
    """Names, or {name: ..., definition: ...}, in the order of their ids, which count from 1."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [it.strip() for it, _ in self.pairs()]
        if not all(names):
            raise ValueError("names: an empty name")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"names: {twice!r} twice")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """(name, definition) of every category."""
        return [(it, "") if isinstance(it, str) else (it.name, it.definition) for it in self.names]


class SubsetDataset(Settings):
    """Some of the training images, or of the training labels, of another data set, with the same validation:
    for studies of scarce data and of novel categories.

    The subsets of one data set and seed are nested: each holds all images of every smaller one.
    """

    source: Literal["subset"]
    """Where the data come from."""
    of: str
    """The other data set, by its name in the scale file."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of its training images; at least one image."""
    seed: int = Field(0, ge=0)
    """Seed of the choice."""
    labels: Literal["all", "base", "not-rare"] = "all"
    """Whose labels the training images keep. base: those of base categories alone, so that no later stage
    sees a label of a novel one; not-rare: those of LVIS's common and frequent categories, the rare ones being
    novel. The data set then says of each category which it is, in `split`."""
    split: str | None = None
    """File of base and novel categories, for `labels: base`; null: the data set's own annotations say it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.split is not None and self.labels != "base":
            raise ValueError("split: has a meaning with labels: base alone")
        return self
