"""How large the data sets of a scale are, before any of them is there."""

from pathlib import Path

from gen4det.core.errors import InputError
from gen4det.core.json_files import dumps
from gen4det.core.settings import parse_settings
from gen4det.core.yaml_files import read_yaml
from gen4det.data.annotations import frequency_groups
from gen4det.data.defects import Defects
from gen4det.data.sources.own import read_splits
from gen4det.engines.work import DataSize
from gen4det.miniature.categories import CATEGORIES
from gen4det.orchestration.project import Project

PUBLIC = "resources/data_sizes.yaml"
"""Sizes of the public data sets, by their names in the registry of downloads."""


class DataSizes:
    """Sizes by the name of a data set in the scale file; what has to be read is read once."""

    def __init__(self, project: Project):
        self.project = project
        self._known: dict[str, DataSize | None] = {}

    def __call__(self, name: str) -> DataSize | None:
        """Size of a data set; None where nobody knows.

        Raises:
            InputError: broken annotations of the user's own photographs, or a broken file of sizes.
        """
        if name not in self._known:
            data = self.project.config.datasets[name]
            self._known[name] = getattr(self, f"_{data.source}")(data)
        return self._known[name]

    def _download(self, data) -> DataSize | None:
        return public_sizes(self.project.root).get(data.dataset)

    def _subset(self, data) -> DataSize | None:
        """Counted as if categories kept their groups of the whole set; few images make many of them rarer."""
        whole = self(data.of)
        if whole is None:
            return None
        images = max(1, round(data.share * whole.train_images))
        share = images / whole.train_images
        fewer = {"train_images": images, "boxes": round(share * whole.boxes)}
        return whole.model_copy(update=fewer | {"annotation_bytes": round(share * whole.annotation_bytes)})

    def _miniature(self, data) -> DataSize:
        """As the renderer draws them: 2.3 objects in an image, 2 KB of annotations."""
        groups = [category.frequency for category in CATEGORIES]
        return DataSize(
            train_images=data.train_images,
            val_images=data.val_images,
            categories={group: groups.count(group) for group in "rcf"},
            boxes=round(2.3 * data.train_images),
            pixels=data.image_size**2,
            annotation_bytes=2000 * (data.train_images + data.val_images),
        )

    def _names(self, data) -> DataSize:
        """No image; every category is as rare as can be."""
        categories = {"r": len(data.names), "c": 0, "f": 0}
        nothing = dict.fromkeys(("train_images", "val_images", "boxes", "pixels", "annotation_bytes"), 0)
        return DataSize(categories=categories, **nothing)

    def _photographs(self, data) -> DataSize | None:
        """Counted from the user's annotations; None where they are not there yet."""
        root = self.project.root
        if data.folder is not None:
            data = data.model_copy(update={"folder": str(root / data.folder)})
            if not Path(data.folder).is_dir():
                return None
        else:
            splits = {split: it for split in ("train", "val") if (it := getattr(data, split))}
            here = {
                split: it.model_copy(
                    update={"annotations": str(root / it.annotations), "images": str(root / it.images)}
                )
                for split, it in splits.items()
            }
            if not all(Path(it.annotations).is_file() for it in here.values()):
                return None
            data = data.model_copy(update=here)
        found = read_splits(data, Defects("drop"), look=False)
        train, val = found["train"].data, found["val"].data
        if not train["images"]:
            raise InputError(f"{found['train'].source}: no training image")
        groups = list(frequency_groups(train).values())
        areas = [image["width"] * image["height"] for image in train["images"]]
        return DataSize(
            train_images=len(areas),
            val_images=len(val["images"]),
            categories={group: groups.count(group) for group in "rcf"},
            boxes=len(train["annotations"]),
            pixels=sum(areas) / len(areas),
            annotation_bytes=sum(len(dumps(it.data)) for it in found.values()),
        )


def public_sizes(root: Path) -> dict[str, DataSize]:
    """Sizes of the public data sets.

    Raises:
        InputError: a broken file.
    """
    path = root / PUBLIC
    entries = read_yaml(path)
    return {
        name: parse_settings(DataSize, entry, source=f"{PUBLIC}: {name}") for name, entry in entries.items()
    }
