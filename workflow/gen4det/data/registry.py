"""The registry of downloads: public data sets and pretrained models, where they are, under which licence.

Nothing here imports numpy: the Snakefile reads the registry.
"""

import fnmatch
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import Field

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings, parse_settings, suggest
from gen4det.core.yaml_files import read_yaml

RelativePath = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")]
"""Names joined by slashes; none starts with a dot."""
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
"""Name of a model; becomes a folder."""
MODELS = "models"
"""Folder of all models below the downloads' folder."""


class Published(Settings):
    """What is known of everything somebody publishes."""

    version: str
    """The publisher's name of the release."""
    licence: str
    """Under which licence."""
    citation: str
    """Who to cite."""


class RegisteredFile(Published):
    """One archive of data."""

    url: Annotated[str, Field(pattern=r"^https?://\S+/[\w.-]+\.(zip|tar|tar\.gz|tgz)$")]
    """Where it is."""
    bytes: Annotated[int, Field(gt=0)] | None
    """Size of the archive; null: unknown."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    """Checksum of the archive; null: unknown, the first download is recorded and enforced afterwards."""
    into: RelativePath
    """Folder below the downloads' folder."""
    contains: RelativePath
    """Path inside the archive of what is kept."""

    @property
    def place(self) -> Path:
        """Where the unpacked file or folder lies, relative to the downloads' folder."""
        return Path(self.into, Path(self.contains).name)

    @property
    def archive(self) -> Path:
        """Where the archive lies until it is unpacked, relative to the downloads' folder."""
        return Path(self.into, self.url.rpartition("/")[2])


class RegisteredWeights(Published):
    """A model that is one file; it lies in `models/<name>` below the downloads' folder."""

    url: Annotated[str, Field(pattern=r"^https?://\S+/[\w.%+-]+\.(pth|safetensors)$")]
    """Where it is."""
    bytes: Annotated[int, Field(gt=0)] | None
    """Size; null: unknown."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None
    """Checksum or its first digits; null: unknown, the first download is recorded and enforced afterwards."""

    @property
    def file(self) -> str:
        """Name of the file."""
        return unquote(self.url.rpartition("/")[2])


class RegisteredModel(Published):
    """A model of the Hugging Face hub; it lies in `models/<name>` below the downloads' folder."""

    hub: Annotated[str, Field(pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$")]
    """Owner and name on the hub."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
    """Commit; null: the newest when it is first downloaded, recorded then and kept to."""
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Which of its files are wanted, as patterns of the shell; every pattern has to match something."""

    @staticmethod
    def matches(path: str, pattern: str) -> bool:
        """Whether a pattern of `files` means a file; * stands for anything but a slash."""
        parts, patterns = path.split("/"), pattern.split("/")
        return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


class VocPart(Settings):
    """One image set of one release of PASCAL VOC."""

    folder: RelativePath
    """Folder of the release, below `images` of its split."""
    image_set: str
    """Name of a list in ImageSets/Main, or of one below ImageSets, e.g. "Segmentation/train"."""


class RegisteredSplit(Settings):
    """One split of a public data set; paths are relative to the downloads' folder."""

    annotations: RelativePath | None = None
    """File in the layout of COCO or LVIS."""
    captions: RelativePath | None = None
    """File of captions in the layout of COCO."""
    voc: tuple[VocPart, ...] = ()
    """Instead of a file: parts in the layout of PASCAL VOC."""
    images: RelativePath
    """Folder below which the images are found."""


class RegisteredDataset(Settings):
    """A public data set."""

    format: Literal["lvis", "coco"]
    """Protocol of its evaluation."""
    files: tuple[str, ...]
    """What has to be downloaded."""
    train: RegisteredSplit
    """Training split."""
    val: RegisteredSplit
    """Validation split."""


class Registry(Settings):
    """All public data and models we know."""

    files: dict[str, RegisteredFile]
    """Archives by name."""
    datasets: dict[str, RegisteredDataset]
    """Data sets by name."""
    weights: dict[ModelName, RegisteredWeights] = {}
    """Models of one file by name."""
    models: dict[ModelName, RegisteredModel] = {}
    """Models of the hub by name."""

    def model(self, name: str) -> RegisteredWeights | RegisteredModel | None:
        """The model of this name, if there is one."""
        return self.weights.get(name) or self.models.get(name)

    def known_models(self) -> list[str]:
        """Names of all models."""
        return [*self.weights, *self.models]


def load_registry(path: str | Path) -> Registry:
    """Read a registry.

    Raises:
        InputError: missing or malformed, a data set names an unknown download, or two models have one name.
    """
    registry = parse_settings(Registry, read_yaml(Path(path)), source=path)
    for name, dataset in registry.datasets.items():
        for file in dataset.files:
            if file not in registry.files:
                raise InputError(
                    f"{path}: datasets.{name}.files: unknown file {file!r}{suggest(file, registry.files)}"
                )
    for name in registry.weights.keys() & registry.models.keys():
        raise InputError(f"{path}: models.{name}: the name stands among the weights, too")
    return registry
