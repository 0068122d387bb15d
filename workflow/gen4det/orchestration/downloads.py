"""Which pretrained models are downloaded before which jobs. Plain Python, no torch.

Settings name a model by its folder. If that is `<downloads>/models/<name>` and the registry has the name, the
rule download_model fetches it, and the jobs that read the model wait for the description beside its files
(download.json). That file tells Snakemake which model it is: commits and checksums are not known before the
first download, so they cannot stand among the parameters of a job.
"""

from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from gen4det.core.errors import InputError
from gen4det.core.settings import Settings, suggest
from gen4det.data.download_settings import DownloadDataset, ModelDownloads
from gen4det.data.registry import MODELS, RegisteredWeights, Registry, load_registry
from gen4det.orchestration.hashes import model_hashes, model_paths
from gen4det.orchestration.job_text import job

DESCRIPTION = "download.json"


class Downloads:
    """The downloaded models that the settings of a run name.

    Args:
        settings: registry, and where downloads are kept.
        root: the repository.
    """

    def __init__(self, settings: ModelDownloads, root: Path):
        self.settings = settings
        self.root = root
        self.place = PurePosixPath(settings.folder, MODELS)

    @cached_property
    def registry(self) -> Registry:
        """The registry; read when a path first lies where downloads do."""
        return load_registry(self.root / self.settings.registry)

    def check(self, path: str | None, key: str) -> None:
        """Refuse a path in the folder of downloaded models that nothing leads to.

        Args:
            path: of a model, or of a file of one; others than ours are not looked at.
            key: of the settings, for errors.

        Raises:
            InputError: the registry has no such model, or its file has another name.
        """
        name = self._folder(path)
        if name is None or (self.root / path).exists():
            return
        entry = self.registry.model(name)
        if entry is None:
            known = suggest(name, self.registry.known_models())
            raise InputError(f"{key}: {path}: {self.settings.registry} has no model {name!r}{known}")
        inside = PurePosixPath(path).relative_to(self.place / name)
        expected = {".", entry.file} if isinstance(entry, RegisteredWeights) else {".", *entry.files}
        if str(inside) not in expected:
            raise InputError(f"{key}: {path}: the files of {name} are {', '.join(sorted(expected - {'.'}))}")

    def name(self, path: str) -> str | None:
        """Name of the registered model that a path means or lies in; None for every other path."""
        name = self._folder(path)
        return name if name and self.registry.model(name) else None

    def needed(self, settings: Any) -> list[str]:
        """Descriptions of the models in these settings that are downloaded, for `input`."""
        names = {self.name(path): None for path in model_paths(settings)}
        return [str(self.place / name / DESCRIPTION) for name in names if name]

    def file(self, path: str | None) -> list[str]:
        """The description of the model that a single file belongs to, for `input`."""
        return self.needed({"path": path, "revision": None}) if path else []

    def hashes(self, settings: Any) -> dict[str, str]:
        """Hashes of the models in these settings on this disk; downloaded ones are inputs instead."""
        return model_hashes(settings, self.root, is_downloaded=self.name)

    def job(self, wildcards: Any) -> str:
        """Settings of the download of one model; only its own entry of the registry is compared."""
        entry = self.registry.model(wildcards.model)
        settings = self.settings.model_dump(mode="json") | {"name": wildcards.model}
        return job(settings, "download_model", registered=entry.model_dump(mode="json"))

    def registered(self, data: Settings) -> dict:
        """What the registry says of a data set that is downloaded; that is compared, not the whole file."""
        if not isinstance(data, DownloadDataset):
            return {}
        registry = load_registry(self.root / data.registry)
        entry = registry.datasets.get(data.dataset)
        if entry is None:
            return {}  # the stage says so
        files = {name: registry.files[name].model_dump(mode="json") for name in entry.files}
        return {"registered": {"dataset": entry.model_dump(mode="json"), "files": files}}

    def _folder(self, path: str | None) -> str | None:
        inside = PurePosixPath(path or ".")
        if not inside.is_relative_to(self.place) or inside == self.place:
            return None
        return inside.relative_to(self.place).parts[0]
