"""Fine-tune a text-to-image model on layouts written as prompts (GeoDiffusion; DetDiffusion, section 3)."""

import functools
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from gen4det.core.provenance import atomic_write
from gen4det.diffusion.features import FeatureTaps
from gen4det.diffusion.finetuning import NoisePrediction
from gen4det.diffusion.pipelines import load_text_to_image
from gen4det.engines import base
from gen4det.engines.detdiffusion.attributes import load_attributes
from gen4det.engines.detdiffusion.layouts import Layout, read_layouts
from gen4det.engines.detdiffusion.perception import PerceptionLoss, PerceptiveHead, Targets
from gen4det.engines.detdiffusion.posteriors import Posteriors
from gen4det.engines.detdiffusion.samples import Sample, Samples, targets, token_ids
from gen4det.engines.detdiffusion.settings import GeneratorSettings, Settings, source_of
from gen4det.engines.detdiffusion.sizes import latent_cells
from gen4det.engines.detdiffusion.vocabulary import extend_vocabulary
from gen4det.engines.detdiffusion.words import fitting
from gen4det.training import processes
from gen4det.training.loop import train
from gen4det.training.stop import Deadline
from gen4det.training.work_folder import WorkFolder

LAYOUT_FILE = "layouts.json"
"""Beside the parts of the pipeline: what its words mean, and what it was fitted to."""

log = logging.getLogger(__name__)


class Fit(base.Fit):
    """Fits the generator; writes a plain StableDiffusionPipeline that carries its words."""

    settings: Settings

    def fit(self, work: Path, fingerprint: dict, output: Path, stop: Deadline) -> dict:
        """See `base.Fit.fit`."""
        settings, generator, train_split = self.settings, self.settings.generator, self.dataset.train
        processes.join(self.device)
        attributes = load_attributes(
            self.inputs.models["attributes"],
            settings.detector,
            settings.attributes,
            training_hash=train_split.hash,
        )
        annotations = train_split.load()
        layouts = read_layouts(annotations, settings.layouts, attributes)
        pipeline = load_text_to_image(source_of(settings.model, self.foundation), self.device)
        added = extend_vocabulary(pipeline, settings.words, attributes=settings.detector is not None)
        left_out = count_left_out(layouts, settings, pipeline)
        classes = [category["id"] for category in annotations["categories"]]
        learner = Learner(pipeline, settings, layouts, train_split.images, classes, workers=self.workers)
        with WorkFolder(work, fingerprint, doing="fitting") as folder:
            facts = train(
                learner.modules,
                learner.step_loss,
                steps=generator.steps,
                work=folder,
                learning_rate=generator.learning_rate,
                warmup=generator.warmup,
                falling="cosine",
                share=functools.partial(
                    share, settings=generator, layers=learner.layers, text=learner.text_place
                ),
                ema_decay=generator.ema_decay,
                weight_decay=generator.weight_decay,
                betas=(0.9, 0.999),
                max_norm=generator.max_norm,
                parts=generator.parts,
                precision=generator.precision,
                seed=self.run_seed,
                device=self.device,
                stop=stop,
                title="generator",
            )
            if processes.is_first():
                with atomic_write(output) as model:
                    save(pipeline, model, settings)
            processes.wait()
        return facts | {
            "layouts": len(layouts),
            "objects": sum(len(layout.objects) for layout in layouts),
            "objects_left_out": left_out,
            "new_words": len(added),
            "head_parameters": learner.head_parameters,
        }


class Learner:
    """The models that learn, and the loss of a part of a batch.

    Raises:
        InputError: a size that does not fit the model.
    """

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        settings: Settings,
        layouts: list[Layout],
        images: object,
        classes: list[int],
        *,
        workers: int = 0,
    ):
        self.pipeline, self.settings = pipeline, settings.generator
        self.unet, self.text, self.vae = pipeline.unet, pipeline.text_encoder, pipeline.vae
        size = (settings.size.height, settings.size.width)
        self.cells = latent_cells(size, pipeline.vae_scale_factor)
        self.posteriors = Posteriors(self.vae, len(layouts), self.cells)
        self.samples = Samples(
            layouts,
            images,
            classes,
            pipeline.tokenizer,
            settings.words,
            self.settings,
            size,
            self.cells,
            known=self.posteriors,
            keep_masks=self.posteriors.keeps,
        )
        self.workers = workers
        perception = self.settings.perception
        self.unet.requires_grad_(self.settings.train_unet).train()
        self.text.requires_grad_(True).train()
        if self.settings.checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.head, taps, self.perception = None, None, None
        if perception.weight:
            taps = FeatureTaps(self.unet, "up")
            count = 1 if perception.masks == "foreground" else len(classes)
            torch.manual_seed(0)
            self.head = PerceptiveHead(taps.channels(), count, perception.channels)
        self.noise = NoisePrediction(pipeline.scheduler, taps=taps)
        if self.head is not None:
            self.perception = PerceptionLoss(self.head, self.noise.schedule, perception.weight)
        self.modules: list[nn.Module] = [self.unet] if self.settings.train_unet else []
        self.text_place = len(self.modules)
        self.modules += [self.text] + ([self.head] if self.head is not None else [])

    @property
    def layers(self) -> int:
        """Layers of the text encoder."""
        return self.text.config.num_hidden_layers

    @property
    def head_parameters(self) -> int:
        """Of the perceptive head; 0 without."""
        return 0 if self.head is None else sum(parameter.numel() for parameter in self.head.parameters())

    def draw(self, rng: np.random.Generator) -> list[Sample]:
        """The samples of a part of a batch."""
        count = self.settings.batch // self.settings.parts
        numbers = rng.integers(len(self.samples.layouts), size=count)
        streams = rng.spawn(count)
        if self.workers < 2:
            return list(map(self.samples, numbers, streams))
        with ThreadPoolExecutor(
            self.workers
        ) as pool:  # Pillow leaves Python's lock while it decodes and scales
            return list(pool.map(self.samples, numbers, streams))

    def step_loss(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses by name: "noise_loss", and "perception_loss" where there is a head."""
        samples = self.draw(rng)
        device = self.text.device
        for module in (self.vae, self.unet):
            if module.device != device:  # to go through all its parts takes milliseconds
                module.to(device)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        latents = self._latents(samples, generator).to(device)
        noise, t = self.noise.draw(tuple(latents.shape), generator)
        ids = token_ids(self.pipeline.tokenizer, [sample.prompt for sample in samples]).to(device)
        states = self.text(ids).last_hidden_state
        if self.perception is not None:
            self.noise.second = self._second(targets(samples, self.cells), device)
        weights = torch.from_numpy(np.stack([sample.weights for sample in samples]))[:, None].to(device)
        weights = weights if self.settings.foreground else None
        found = self.noise(self.unet, latents, states, noise.to(device), t.to(device), weights=weights)
        if found.second is None:
            return {"noise_loss": found.total}
        # Only the sum carries a gradient; the second part is taken off again where parts are shown.
        return {"noise_loss": found.total - found.second, "perception_loss": found.second}

    def _second(self, wanted: Targets, device: torch.device):
        moved = Targets(wanted.classes.to(device), wanted.masks.to(device), wanted.valid.to(device))
        return lambda prediction, t, features: self.perception(t, features, moved)

    @torch.no_grad()
    def _latents(self, samples: list[Sample], generator: torch.Generator) -> Tensor:
        """float32 (images, channels, *cells), sampled from the autoencoder's posterior."""
        keys, pixels = [sample.key for sample in samples], [sample.pixels for sample in samples]
        means, deviations = self.posteriors(keys, pixels)
        noise = torch.randn(means.shape, generator=generator).to(means.device)
        return (means + deviations * noise) * self.vae.config.scaling_factor


def share(
    name: str, parameter: Tensor, *, settings: GeneratorSettings, layers: int, text: int
) -> tuple[float, float]:
    """Multiples of learning rate and weight decay of a parameter; see `training.loop.Share`.

    Args:
        layers: of the text encoder.
        text: its place among the modules.
    """
    place, _, inside = name.partition(".")
    decay = 0.0 if parameter.ndim == 1 else 1.0
    if int(place) != text:
        return 1.0, decay
    layer = re.search(r"layers\.(\d+)\.", inside)
    depth = int(layer[1]) + 1 if layer else 0 if "embedding" in inside else layers + 1
    if "position_embedding" in inside:
        decay = 0.0
    return settings.text_rate * settings.text_decay ** (layers + 1 - depth), decay


def count_left_out(layouts: list[Layout], settings: Settings, pipeline: StableDiffusionPipeline) -> int:
    """Objects, in the order of the annotations, that the text encoder would not read; said, if there are
    any."""
    lost = 0
    for layout in layouts:
        lost += len(layout.objects) - fitting(layout, settings.words, pipeline.tokenizer)[1]
    if lost:
        log.warning("detdiffusion: %d objects do not fit into the text encoder's window", lost)
    return lost


def save(pipeline: StableDiffusionPipeline, folder: Path, settings: Settings) -> None:
    """Write a plain pipeline in float32 and, beside its parts, what its words mean."""
    pipeline.unet.disable_gradient_checkpointing()
    for module in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        module.requires_grad_(False).eval().to("cpu")
    pipeline.save_pretrained(folder, safe_serialization=True)
    meaning = {
        "words": settings.words.model_dump(mode="json"),
        "attributes": settings.detector is not None,
        "size": settings.size.model_dump(mode="json"),
    }
    (folder / LAYOUT_FILE).write_text(json.dumps(meaning, indent=1) + "\n")
