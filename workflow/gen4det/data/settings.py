"""Settings of a data set, whatever its source: rendered, a user's own photographs, public downloads,
or a subset of one of these.

For those who compose a configuration. The stages import the settings of their own source, so that their code
hash does not follow those of the others.
"""

from typing import Annotated

from pydantic import Field

from gen4det.data.download_settings import DownloadDataset
from gen4det.data.source_settings import PhotographsDataset, SubsetDataset
from gen4det.miniature.settings import MiniatureDataset

DatasetSettings = Annotated[
    MiniatureDataset | PhotographsDataset | DownloadDataset | SubsetDataset,
    Field(discriminator="source"),
]
"""One entry of `datasets` in the configuration, told apart by its key `source`."""
