"""The miniature's aesthetic predictor: it tells clean pictures from spoilt ones by CLIP's image embeddings.

The public predictor was fitted to people's ratings from 1 to 10. Nobody rates renderings, so quality is known
by construction here: 10 for a picture as rendered, down to 1 for one that was spoilt with full strength, in a
random way, as a whole or inside the boxes of its objects, where inpainting leaves its traces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import mannwhitneyu, spearmanr
from torch import nn

from gen4det.core.progress import progress
from gen4det.core.provenance import atomic_write, seed_for, write_json
from gen4det.miniature.categories import CATEGORIES
from gen4det.miniature.corpus import corpus_item
from gen4det.miniature.degradation import KINDS, degrade
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining
from gen4det.miniature.renderer import Scene, render_scene

SCENE_SIZE, OBJECT_SIZE = 128, (18.0, 58.0)  # as in the detection data
PORTRAIT_SHARE = 0.2
LOCAL_SHARE = 0.3  # of the spoilt pictures only inside the boxes of the objects
MIN_STRENGTH = 0.2
BATCH, HELDOUT = 256, 400
BEST, WORST = 10.0, 1.0

Embed = Callable[[list[np.ndarray]], torch.Tensor]
"""Images, uint8 (H, W, 3), to CLIP's embeddings, float32 (N, D)."""


@dataclass(frozen=True)
class Pair:
    """A picture as rendered and spoilt, and the quality of the spoilt one."""

    clean: np.ndarray
    spoilt: np.ndarray
    quality: float
    kind: str
    local: bool


def draw_pair(settings: FoundationTraining, stream: str, index: int) -> Pair:
    """One pair of a random stream, which is none of the corpus' or the detection data's."""
    rng = np.random.default_rng(seed_for(settings.seed, stream, index))
    scene = _scene(settings, stream, index, rng)
    kind, strength = list(KINDS)[rng.integers(len(KINDS))], rng.uniform(MIN_STRENGTH, 1)
    local = bool(rng.random() < LOCAL_SHARE and scene.objects)
    boxes = [placed.box for placed in scene.objects] if local else None
    spoilt = degrade(scene.image, kind, strength, rng, boxes)
    return Pair(scene.image, spoilt, BEST - (BEST - WORST) * strength, kind, local)


def _scene(settings: FoundationTraining, stream: str, index: int, rng: np.random.Generator) -> Scene:
    if rng.random() < PORTRAIT_SHARE:
        return corpus_item(settings, index, stream).scene
    picks = rng.choice(len(CATEGORIES), rng.integers(1, 6))
    return render_scene(int(rng.integers(2**62)), [CATEGORIES[i] for i in picks], SCENE_SIZE, OBJECT_SIZE)


def embedded_pairs(
    settings: FoundationTraining, embed: Embed, stream: str, count: int
) -> dict[str, torch.Tensor]:
    """Embeddings "clean" and "spoilt" (N, D), "quality" (N,) of the spoilt ones, "kind" and "local" (N,)."""
    clean, spoilt, quality, kind, local = [], [], [], [], []
    with progress(None, f"render {stream}", "pair", total=count) as bar:
        for start in range(0, count, 64):
            pairs = [draw_pair(settings, stream, index) for index in range(start, min(start + 64, count))]
            clean.append(embed([pair.clean for pair in pairs]).cpu())
            spoilt.append(embed([pair.spoilt for pair in pairs]).cpu())
            quality += [pair.quality for pair in pairs]
            kind += [list(KINDS).index(pair.kind) for pair in pairs]
            local += [pair.local for pair in pairs]
            bar.update(len(pairs))
    return {
        "clean": torch.cat(clean), "spoilt": torch.cat(spoilt), "quality": torch.tensor(quality),
        "kind": torch.tensor(kind), "local": torch.tensor(local),
    }  # fmt: skip


def train_aesthetic(job: FoundationJob, head: nn.Module, embed: Embed, *, heldout: int = HELDOUT) -> dict:
    """Train the head and save it, with `scores.png`.

    Args:
        head: maps embeddings (N, D) to scores (N,).
        heldout: pairs that it is judged on.

    Returns:
        Facts for the record; "heldout" holds figures on held-out pairs, see `judge_head`.
    """
    settings, device = job.settings, job.device
    cache = job.work / "embeddings.pt"
    if not cache.exists():
        pairs = embedded_pairs(settings, embed, "aesthetic", settings.aesthetic_scenes)
        with atomic_write(cache) as temporary:
            torch.save(pairs, temporary)
    pairs = torch.load(cache, weights_only=True)
    embeddings = torch.cat([pairs["clean"], pairs["spoilt"]]).to(device)
    clean = torch.full_like(pairs["quality"], BEST)
    quality = torch.cat([clean, pairs["quality"]]).to(device)
    head.to(device).train()

    def step_loss(step: int, rng: np.random.Generator) -> torch.Tensor:
        pick = torch.from_numpy(rng.integers(0, len(quality), BATCH)).to(device)
        return nn.functional.mse_loss(head(embeddings[pick]), quality[pick])

    trained = job.train([head], step_loss, steps=settings.aesthetic_steps, learning_rate=2e-3, ema_decay=0.99)
    head.eval()
    facts, clean_scores, spoilt_scores = judge_head(settings, head, embed, device, heldout)
    with job.result() as folder:
        draw_scores(settings, clean_scores, spoilt_scores, facts, folder / "scores.png")
        state = {name: value.half().cpu().contiguous() for name, value in head.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        config = {
            "model_type": "aesthetic-predictor", "embedding": embeddings.shape[1],
            "layers": [1024, 128, 64, 16, 1], "scores": [WORST, BEST], "heldout": facts,
        }  # fmt: skip
        write_json(folder / "config.json", config, indent=1)
    return {**trained, "heldout": facts}


@torch.no_grad()
def judge_head(
    settings: FoundationTraining, head: nn.Module, embed: Embed, device: str, count: int = HELDOUT
) -> tuple[dict, np.ndarray, np.ndarray]:
    """How well the head ranks pictures of a stream that it was not trained on.

    Returns:
        {"images", "rank_correlation": Spearman's, of score and quality over clean and spoilt pictures,
        "auc": probability that a clean picture scores above a spoilt one, "auc_by_kind", "auc_local"}; scores
        of the clean and of the spoilt pictures.
    """
    pairs = embedded_pairs(settings, embed, "aesthetic-heldout", count)
    clean, spoilt = (head(pairs[key].to(device)).float().cpu().numpy() for key in ("clean", "spoilt"))
    truth = np.concatenate([np.full(len(clean), BEST), pairs["quality"].numpy()])

    def auc(chosen: np.ndarray) -> float:
        wins = mannwhitneyu(clean, spoilt[chosen]).statistic
        return round(float(wins / (len(clean) * chosen.sum())), 4)

    kind, local = pairs["kind"].numpy(), pairs["local"].numpy()
    facts = {
        "images": 2 * len(clean),
        "rank_correlation": round(float(spearmanr(truth, np.concatenate([clean, spoilt])).statistic), 4),
        "auc": auc(np.ones(len(spoilt), bool)),
        "auc_local": auc(local),
        "auc_by_kind": {name: auc(kind == index) for index, name in enumerate(KINDS)},
    }
    return facts, clean, spoilt


def draw_scores(
    settings: FoundationTraining, clean: np.ndarray, spoilt: np.ndarray, facts: dict, path: Path
) -> None:
    """Histogram of the scores of held-out pictures, and some spoilt ones from the worst to the best score."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(7, 4.6), layout="constrained")
    panels = figure.subplot_mosaic([["scores"] * 8, [f"{i}" for i in range(8)]], height_ratios=(2, 1))
    bins = np.linspace(min(clean.min(), spoilt.min()), max(clean.max(), spoilt.max()), 41)
    for scores, name, colour in ((spoilt, "spoilt", "#D55E00"), (clean, "as rendered", "#0072B2")):
        panels["scores"].hist(scores, bins, label=name, color=colour, alpha=0.6)
    title = f"held-out pictures: rank correlation {facts['rank_correlation']:.2f}, AUC {facts['auc']:.2f}"
    panels["scores"].set(xlabel="aesthetic score", ylabel="pictures", title=title)
    panels["scores"].legend(frameon=False)
    order = np.argsort(spoilt)
    for slot, rank in enumerate(np.linspace(0, len(order) - 1, 8).astype(int)):
        pair = draw_pair(settings, "aesthetic-heldout", int(order[rank]))
        axes = panels[f"{slot}"]
        axes.imshow(pair.spoilt)
        axes.set_axis_off()
        how = f"{pair.kind}, in boxes" if pair.local else pair.kind
        axes.set_title(f"{spoilt[order[rank]]:.1f}\n{how}\n(made {pair.quality:.1f})", fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
