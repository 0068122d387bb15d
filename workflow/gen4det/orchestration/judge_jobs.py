"""Jobs of the miniature's judge: its detector, and which of an engine's images it sees."""

from typing import Any

from gen4det.detection.settings import DetectorSettings
from gen4det.orchestration.job_text import job
from gen4det.orchestration.jobs import Jobs

CONFIG = "config/detectors/miniature_mask_rcnn.py"
BACKBONE = "resources/miniature/backbone/model.safetensors"


class JudgeJobs:
    """Functions that the judge's rules call, for one checked configuration."""

    def __init__(self, jobs: Jobs):
        self.jobs = jobs
        self.settings = jobs.config.canvas_judge

    def render(self, wildcards: Any) -> str:
        """Settings of the renderings that the judge's detector is trained on."""
        return job(self.settings.model_dump(mode="json"), "judge_canvases")

    def train(self, wildcards: Any) -> str:
        """Settings of the training of that detector."""
        detector = DetectorSettings(
            config=CONFIG,
            backbone_weights=BACKBONE,
            iterations=self.settings.iterations,
            repeat_threshold=0,  # all categories are equally frequent
        )
        return self.jobs.training(detector, real=True, seed=0)

    def judge(self, wildcards: Any) -> str:
        """Settings of one judgement, and what the models that draw and paint single objects are."""
        models = self.jobs.config.foundation.model_dump(mode="json", include={"diffusion", "inpainting"})
        hashes = self.jobs.downloads.hashes(models)
        return job(self.settings.model_dump(mode="json"), "judge_canvases", models=hashes)

    def models(self, wildcards: Any) -> str:
        """Options that name those models."""
        foundation = self.jobs.config.foundation
        named = {"diffusion": foundation.diffusion, "inpainting": foundation.inpainting}
        return " ".join(f"--{name} {model.path}" for name, model in named.items() if model is not None)
