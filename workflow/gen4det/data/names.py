"""Names of categories as a data set without images."""

from pathlib import Path

from gen4det.data.annotations import category_counts, counted_groups
from gen4det.data.datasets import DatasetDescriptor, SplitDescriptor, write_dataset, write_split
from gen4det.data.source_settings import NamesDataset


def write_names(name: str, settings: NamesDataset, output: str | Path) -> None:
    """Write dataset.json, which has no validation split, and train.json, which has categories alone.

    In the layout of LVIS every category counts as rare: it has no training image.

    Args:
        output: dataset.json.
    """
    output = Path(output)
    categories = []
    for number, (text, definition) in enumerate(settings.pairs(), start=1):
        category = {"id": number, "name": text.strip()}
        categories.append(category | ({"def": definition} if definition else {}))
    data = {"images": [], "annotations": [], "categories": categories}
    if settings.format == "lvis":
        counts, groups = category_counts(data), counted_groups(data)
        for category in categories:
            images, instances = counts[category["id"]]
            category |= {"frequency": groups[category["id"]], "image_count": images}
            category["instance_count"] = instances
    train = SplitDescriptor(**write_split(output.parent, "train", data), images=".")
    write_dataset(
        output, DatasetDescriptor(name=name, format=settings.format, train=train, categories=categories)
    )
