"""Settings of what is downloaded: public data sets and pretrained models.

Apart from the other sources, so that the code hash of downloads does not depend on them.
"""

from typing import Literal

from gen4det.core.settings import Settings

REGISTRY = "resources/data_registry.yaml"
FOLDER = "results/downloads"


class DownloadDataset(Settings):
    """A public data set of the registry of downloads."""

    source: Literal["download"]
    """Where the data come from."""
    dataset: str
    """Name among the `datasets` of the registry."""
    registry: str = REGISTRY
    """File that lists the downloads."""
    folder: str = FOLDER
    """Where downloads are kept and unpacked; shared by all data sets."""
    root: str | None = None
    """Folder of your own that holds the data already, as its publisher packs them or as they lie in `folder`.
    What is found there is used where it lies, neither downloaded nor copied; the rest is downloaded."""


class ModelDownloads(Settings):
    """Downloaded models. A model of the registry lies in the folder `models/<name>` below `folder`; where the
    settings of a model name that folder, it is downloaded before the first job that reads it."""

    registry: str = REGISTRY
    """File that lists the downloads."""
    folder: str = FOLDER
    """Where downloads are kept."""


class DownloadModel(ModelDownloads):
    """What the download of one model reads."""

    name: str
    """Name among the `models` and `weights` of the registry."""
