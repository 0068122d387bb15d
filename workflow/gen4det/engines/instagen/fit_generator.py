"""Fit the text-to-image model to the data: its U-Net, on crops around objects (InstaGen, section 3.1)."""

from pathlib import Path

import numpy as np
import torch

from gen4det.core.provenance import atomic_write, seed_for
from gen4det.diffusion.finetuning import NoisePrediction
from gen4det.diffusion.pipelines import load_text_to_image
from gen4det.diffusion.text import TextStates
from gen4det.diffusion.training_crops import ObjectCrops
from gen4det.engines import base
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.instagen.vocabulary import require_no_leak, vocabulary
from gen4det.training import processes
from gen4det.training.loop import train
from gen4det.training.stop import Deadline
from gen4det.training.work_folder import WorkFolder


class Fit(base.Fit):
    """The fitted model is a plain StableDiffusionPipeline, its U-Net the average of the training."""

    settings: Settings

    def fit(self, work: Path, fingerprint: dict, output: Path, stop: Deadline) -> dict:
        """See `base.Fit.fit`."""
        chosen, settings = self.settings.generator, self.settings
        require_no_leak(self.dataset, vocabulary(self.dataset, settings.vocabulary))
        pipeline = load_text_to_image(self.foundation.diffusion, self.device)
        seed = seed_for(self.run_seed, settings.method, "generator")
        crops = ObjectCrops(
            self.dataset.train.load(),
            self.dataset.train.images,
            side=settings.size,
            seed=seed,
            template=settings.prompt,
            without_caption=chosen.without_caption,
            neighbours=chosen.neighbours,
            source=self.dataset.train.annotations_path,
        )
        steps = round(chosen.epochs * len(crops) / chosen.batch_size)
        facts = {"images": len(crops), "steps": steps}
        with WorkFolder(work, fingerprint, doing="fitting") as folder:
            if steps:
                facts |= self._train(pipeline, crops, steps, seed, folder, stop)
            if processes.is_first():
                with atomic_write(output) as model:
                    pipeline.save_pretrained(model, safe_serialization=True)
        processes.wait()
        return facts

    def _train(
        self, pipeline, crops: ObjectCrops, steps: int, seed: int, folder: WorkFolder, stop: Deadline
    ) -> dict:
        chosen = self.settings.generator
        text = TextStates(pipeline)
        loss_of = NoisePrediction(pipeline.scheduler, min_snr=chosen.min_snr)
        unet, vae = pipeline.unet.requires_grad_(True).train(), pipeline.vae
        if chosen.checkpointing:
            unet.enable_gradient_checkpointing()
        size = chosen.micro_batch

        def step_loss(step: int, rng: np.random.Generator, part: int) -> torch.Tensor:
            first = step * chosen.batch_size + part * size
            samples = [crops[number] for number in range(first, first + size)]
            draw = torch.Generator().manual_seed(seed_for(seed, "noise", step, part))
            latents = self._encode(vae, torch.stack([it["pixels"] for it in samples]), draw)
            states = torch.cat([text(it["caption"]) for it in samples])
            noise, t = loss_of.draw(latents.shape, draw)
            return loss_of(unet, latents, states, noise.to(latents.device), t.to(latents.device)).total

        facts = train(
            [unet],
            step_loss,
            steps=steps,
            work=folder,
            learning_rate=chosen.learning_rate,
            warmup=1,
            constant_share=1.0,
            betas=(0.9, 0.999),
            weight_decay=chosen.weight_decay,
            ema_decay=chosen.ema_decay,
            ema_warmup=chosen.ema_warmup,
            parts=chosen.batch_size // size,
            precision=chosen.precision,
            seed=seed,
            device=self.device,
            stop=stop,
            title="generator",
        )
        unet.requires_grad_(False).eval()
        return facts

    @torch.no_grad()
    def _encode(self, vae, pixels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """Latents sampled from the posterior, scaled as the U-Net expects; image by image, for memory."""
        latents = []
        for image in pixels.to(vae.device):
            found = vae.encode(image[None]).latent_dist
            noise = torch.randn(found.mean.shape, generator=draw).to(found.mean.device)
            latents.append(found.mean + found.std * noise)
        return torch.cat(latents) * vae.config.scaling_factor
