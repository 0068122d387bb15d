"""Jobs of the miniature's foundation models, which belong to no study."""

from pathlib import Path
from typing import Any

from gen4det.detection.config_files import config_files
from gen4det.miniature.foundation_parts import INSTALL, PARTS, WEIGHTS
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.orchestration.hashes import folder_hash, sampled_hash
from gen4det.orchestration.job_text import job


class FoundationJobs:
    """Parts, their inputs and their settings. Wildcards without a part mean the installation."""

    def __init__(self, settings: FoundationTraining, root: Path):
        self.settings, self.root = settings, root
        self.folder = settings.folder.rstrip("/")

    def parts(self, *, learns: bool = False) -> list[str]:
        """Names of all parts, or of those that have losses."""
        return [name for name, part in PARTS.items() if part.learns or not learns]

    def results(self, *parts: str) -> list[str]:
        """Results of these parts."""
        return [f"{self.folder}/{name}/result" for name in parts]

    def reads(self, wildcards: Any) -> list[str]:
        """Results that a part reads; what is installed, and the curves of its losses."""
        if hasattr(wildcards, "part"):
            return self.results(*PARTS[wildcards.part].reads)
        curves = [f"{self.folder}/{name}/losses.png" for name in self.parts(learns=True)]
        return self.results(*INSTALL.reads) + curves

    def job(self, wildcards: Any) -> str:
        """Settings that a part reads, its code, and hashes of what it reads beside its inputs."""
        part = PARTS[wildcards.part] if hasattr(wildcards, "part") else INSTALL
        settings = self.settings.model_dump(mode="json", include=set(part.settings))
        files = config_files(self.root / part.config) if part.config else []
        hashes = {str(file.relative_to(self.root)): sampled_hash(file) for file in files}
        for name in WEIGHTS:
            if given := settings.get(name):
                hashes[given] = folder_hash(self.root / given)
        return job(settings, "foundation", part.module, files=hashes)
