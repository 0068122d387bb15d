"""The miniature's grounded inpainting U-Net, of GLIGEN's kind (Li et al. 2023, arXiv 2301.07093).

It starts from the text-conditional U-Net and adds a position net, gated self-attention and five input
channels (known latents, mask), or goes on from such a model. GLIGEN freezes the old weights; here they learn
along, because they have seen single objects at 64 pixels only. Every scene is rendered for the step that
shows it. Most steps show windows of 64 pixels around one object, which cost a quarter; the others
whole scenes of the size of the detection images, because GLIGEN's boxes are relative to the image.
"""

import os
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from gen4det.core.errors import InputError
from gen4det.core.provenance import seed_for
from gen4det.miniature.autoencoder import to_tensor
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.corpus import category_shares
from gen4det.miniature.diffusion import NOISE, denoising_loss, new_unet, tokenize
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.renderer import render_scene

SCENE_SIZE, OBJECT_SIZE, OBJECTS = 128, (18.0, 58.0), 5  # pixels; most objects of a scene
WINDOW_SHARE, WINDOW_BATCH, SCENE_BATCH = 0.7, 16, 8  # of the steps; examples per step
CONSTANT_SHARE = 2 / 3  # of the steps before the learning rate falls
EMA_DECAY = 0.998
MAX_BOXES = 30  # GLIGEN's limit
SHARED = ("vae", "text_encoder", "tokenizer", "scheduler")  # with the text-to-image pipeline
NULL_SHARE = 0.1  # neither caption nor boxes, for classifier-free guidance
CAPTIONLESS_SHARE = 0.3  # boxes alone: otherwise a single object's caption says all and boxes stay unread
ALONE_SHARE = 0.6  # of the whole scenes have one object repainted, after its name; the others all at once
GATES, GATE = ("fuser.alpha_attn", "fuser.alpha_dense"), 0.3  # the output of a gated layer counts tanh(GATE)
KNOWN_WEIGHT = 0.1  # of the loss outside the boxes, where the answer is among the inputs


def grounded_unet(settings: FoundationTraining, base: UNet2DConditionModel) -> UNet2DConditionModel:
    """A gated nine-channel U-Net; with its gates closed it behaves exactly like `base`.

    GLIGEN starts with closed gates. On the small budget here they stay closed: neither the gates nor what
    lies behind them learns before the other does. They therefore start ajar, at `GATE`; wide open they would
    drown what `base` knows of words.
    """
    size = base.config.sample_size * SCENE_SIZE // settings.image_size
    unet = new_unet(settings, size, in_channels=9, attention_type="gated")
    state = base.state_dict()
    state["conv_in.weight"] = torch.nn.functional.pad(state["conv_in.weight"], (0, 0, 0, 0, 0, 5))
    missing, unexpected = unet.load_state_dict(state, strict=False)
    assert not unexpected and all("fuser" in name or "position_net" in name for name in missing)
    for name, parameter in unet.named_parameters():
        if name.endswith(GATES):
            parameter.data.fill_(GATE)
    return unet


def start(settings: FoundationTraining, base: UNet2DConditionModel) -> UNet2DConditionModel:
    """The U-Net as the training begins: `base` with gates, or that of `inpainting_start`.

    What `base` has learned since `inpainting_parent` is added to that: differences between weights that come
    from one model can be summed (task arithmetic, Ilharco et al. 2023, arXiv 2212.04089).

    Raises:
        InputError: a folder has no U-Net, or one of another size.
    """
    unet = grounded_unet(settings, base)
    if settings.inpainting_start is None:
        return unet
    unet = _same_size(unet, settings.inpainting_start, "inpainting_start")
    if settings.inpainting_parent is None:
        return unet
    parent = _same_size(base, settings.inpainting_parent, "inpainting_parent").state_dict()
    state = unet.state_dict()  # shares its memory with the parameters
    for name, now in base.state_dict().items():
        learned = now - parent[name]
        state[name][:, : learned.shape[1]].add_(learned) if name == "conv_in.weight" else state[name].add_(
            learned
        )
    return unet


def _same_size(expected: UNet2DConditionModel, path: str, setting: str) -> UNet2DConditionModel:
    if not (Path(path) / "unet" / "config.json").is_file():
        raise InputError(f"{setting}: {path}: not a pipeline folder: it has no unet/config.json")
    given = UNet2DConditionModel.from_pretrained(path, subfolder="unet", torch_dtype=torch.float32)
    shapes = [{name: tuple(it.shape) for name, it in one.state_dict().items()} for one in (given, expected)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{setting}: {path}: its U-Net is of another size than expected here")
    return given


def render_scenes(
    settings: FoundationTraining, numbers: range, shares: np.ndarray | None
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Scenes of one to five objects, of a stream of their own.

    Args:
        numbers: which ones.
        shares: probability of each category; None: all alike.

    Returns:
        Images uint8 (N, 128, 128, 3), boxes (N, 5, 4) relative xyxy, categories (N, 5), -1 where empty;
        objects fill the first places.
    """
    images = []
    boxes = torch.zeros(len(numbers), OBJECTS, 4)
    categories = torch.full((len(numbers), OBJECTS), -1)
    for place, number in enumerate(numbers):
        rng = np.random.default_rng(seed_for(settings.seed, "inpainting", number))
        picks = rng.choice(len(CATEGORIES), rng.integers(1, OBJECTS + 1), p=shares)
        shown = [CATEGORIES[i] for i in picks]
        scene = render_scene(int(rng.integers(2**62)), shown, SCENE_SIZE, OBJECT_SIZE)
        for slot, placed in enumerate(scene.objects):
            x, y, w, h = placed.box
            boxes[place, slot] = torch.tensor([x, y, x + w, y + h]) / SCENE_SIZE
            categories[place, slot] = placed.category.id - 1
        images.append(scene.image)
    return np.stack(images), boxes, categories


def box_mask(boxes: torch.Tensor, present: torch.Tensor, size: int) -> torch.Tensor:
    """Latent mask (B, 1, size, size): 0 inside any box (to be painted), 1 outside; every box covers a cell.

    Args:
        boxes: (B, K, 4) relative xyxy.
        present: (B, K) bool.
    """
    low = (boxes[..., :2] * size).floor().long()
    high = torch.maximum((boxes[..., 2:] * size).ceil().long(), low + 1)
    cells = torch.arange(size)
    inside = [(cells >= low[..., i, None]) & (cells < high[..., i, None]) for i in (0, 1)]
    covered = inside[1][..., :, None] & inside[0][..., None, :] & present[..., None, None]
    return 1.0 - covered.any(1, keepdim=True).float()


def windows_around(
    latents: torch.Tensor, boxes: torch.Tensor, slot: torch.Tensor, side: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut from each scene a square of `side` cells, at random but around one of its boxes.

    Args:
        latents: (B, 4, S, S).
        boxes: (B, K, 4), xyxy relative to the scene.
        slot: (B,), the box of each scene that is to lie within; at most `side` cells wide and high.

    Returns:
        Latents (B, 4, side, side) and boxes relative to them; other boxes may reach beyond [0, 1].
    """
    size = latents.shape[-1]
    around = boxes[torch.arange(len(boxes)), slot] * size
    first = (around[:, 2:].ceil() - side).clamp(min=0)
    last = around[:, :2].floor().clamp(max=size - side).maximum(first)
    start = first + (torch.from_numpy(rng.random(first.shape)) * (last - first + 1)).floor().float()
    cut = [
        scene[:, y : y + side, x : x + side]
        for scene, (x, y) in zip(latents, start.int().tolist(), strict=True)
    ]
    return torch.stack(cut), (boxes * size - start.repeat(1, 2)[:, None]) / side


def make(job: FoundationJob) -> dict:
    """Train and save the pipeline folder; parts shared with the text-to-image pipeline are linked.

    Returns:
        Facts for the record.
    """
    settings, device, diffusion = job.settings, job.device, job.inputs["diffusion"]
    vae = AutoencoderKL.from_pretrained(diffusion / "vae", torch_dtype=torch.float32).to(device).eval()
    base = UNet2DConditionModel.from_pretrained(diffusion / "unet", torch_dtype=torch.float32)
    text_encoder = CLIPTextModel.from_pretrained(diffusion / "text_encoder", torch_dtype=torch.float32).to(
        device
    )
    tokenizer = CLIPTokenizer.from_pretrained(diffusion / "tokenizer")
    shares = category_shares(settings.category_weights)
    torch.manual_seed(settings.seed)
    unet = start(settings, base).to(device).train()
    scheduler = DDPMScheduler(**NOISE)
    names = [category.name for category in CATEGORIES]
    with torch.no_grad():
        phrases = text_encoder(tokenize(tokenizer, names).to(device)).pooler_output

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        windows = rng.random() < WINDOW_SHARE
        count = WINDOW_BATCH if windows else SCENE_BATCH
        numbers = range(step * WINDOW_BATCH, step * WINDOW_BATCH + count)
        images, boxes, categories = render_scenes(settings, numbers, shares)
        with torch.no_grad():
            clean = vae.encode(to_tensor(images, device)).latent_dist.mode()
        present = categories >= 0
        slot = torch.from_numpy(rng.integers(0, present.sum(1).numpy()))
        alone = torch.from_numpy(rng.random(count) < ALONE_SHARE) | windows
        present &= ~alone[:, None] | (torch.arange(present.shape[1]) == slot[:, None])
        if windows:
            clean, boxes = windows_around(clean, boxes, slot, base.config.sample_size, rng)
        mask = box_mask(boxes, present, clean.shape[-1]).to(device)
        dropped = torch.from_numpy(rng.random(count) < NULL_SHARE)
        captionless = dropped | torch.from_numpy(rng.random(count) < CAPTIONLESS_SHARE)
        prompts = [
            ""
            if without
            else ", ".join(dict.fromkeys(names[c] for c, p in zip(cs.tolist(), ps, strict=True) if p))
            for cs, ps, without in zip(categories, present, captionless, strict=True)
        ]
        with torch.no_grad():
            context = text_encoder(tokenize(tokenizer, prompts).to(device)).last_hidden_state
        grounded = (present & ~dropped[:, None]).to(device)
        embeddings = phrases[categories.clamp(min=0).to(device)] * grounded[..., None]
        pad = MAX_BOXES - boxes.shape[1]
        grounding = {
            "boxes": torch.nn.functional.pad(boxes.to(device) * grounded[..., None], (0, 0, 0, pad)),
            "positive_embeddings": torch.nn.functional.pad(embeddings, (0, 0, 0, pad)),
            "masks": torch.nn.functional.pad(grounded.float(), (0, pad)),
        }
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (count,)).to(device)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        predicted = unet(
            torch.cat([noisy, clean * mask, mask], 1), timesteps, encoder_hidden_states=context,
            cross_attention_kwargs={"gligen": grounding},
        ).sample  # fmt: skip
        weight = 1 - (1 - KNOWN_WEIGHT) * mask
        weight = (weight / weight.mean((1, 2, 3), keepdim=True)).sqrt()
        return denoising_loss(predicted * weight, noise * weight, timesteps, scheduler)

    facts = job.train(
        [unet],
        step_loss,
        steps=settings.inpainting_steps,
        learning_rate=settings.inpainting_rate,
        constant_share=CONSTANT_SHARE,
        ema_decay=EMA_DECAY,
    )
    with job.result() as folder:
        unet.half().save_pretrained(folder / "unet", safe_serialization=True)
        for part in SHARED:
            os.symlink(os.path.relpath(diffusion / part, job.output), folder / part)
        (folder / "model_index.json").write_text(_MODEL_INDEX)
    return facts


_MODEL_INDEX = """{
  "_class_name": "StableDiffusionGLIGENPipeline",
  "feature_extractor": [null, null],
  "requires_safety_checker": false,
  "safety_checker": [null, null],
  "scheduler": ["diffusers", "PNDMScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"]
}
"""
