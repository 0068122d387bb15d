"""Settings of a data set, whatever its source: rendered, a user's own photographs, public downloads,
names alone, or a subset of one of these.

For the orchestration. Each stage imports the settings of its own source only, so that its code hash does not
depend on the settings of the others; that is why they are split over three files.
"""

from typing import Annotated

from pydantic import Field

from gen4det.data.download_settings import DownloadDataset
from gen4det.data.source_settings import NamesDataset, PhotographsDataset, SubsetDataset
from gen4det.miniature.settings import MiniatureDataset

DatasetSettings = Annotated[
    MiniatureDataset | PhotographsDataset | NamesDataset | DownloadDataset | SubsetDataset,
    Field(discriminator="source"),
]
"""One entry of `datasets` in the configuration, told apart by its key `source`."""
