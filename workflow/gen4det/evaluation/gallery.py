"""A page of generated images: some that were kept, with their labels, and some that were not, and why."""

import random
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gen4det.core.provenance import seed_for
from gen4det.data.images import ImageStore, image_name
from gen4det.data.label_sets import as_dictionaries
from gen4det.data.shards import load_shard
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import PAGE_WIDTH, as_text, style
from gen4det.evaluation.study_settings import GallerySettings

REASON_LINES = 5
"""Lines of text below an image with rejected labels."""


@dataclass
class GeneratedSet:
    """What one engine drew, as far as its files tell."""

    name: str
    images: dict[int, tuple[ImageStore, dict]] = field(default_factory=dict)
    """Image id -> where it lies and its record."""
    kept: dict[int, list[dict]] = field(default_factory=lambda: defaultdict(list))
    """Image id -> labels offered for training."""
    rejected: dict[int, list[dict]] = field(default_factory=lambda: defaultdict(list))
    """Image id -> labels that were not, each with "reason"."""
    names: dict[int, str] = field(default_factory=dict)
    """Category id -> name."""


# --- reading --------------------------------------------------------------------------------------


def read_shards(paths: list[str | Path]) -> GeneratedSet:
    """Shards of one engine: tables of their labels, zips beside them.

    Raises:
        InputError: a file is missing, no shard, or its images are gone.
    """
    generated = GeneratedSet(_engine_of(Path(paths[0]).resolve().parent))
    for path in paths:
        _add(generated, Path(path), load_shard(path))
    return generated


def read_synthetic(path: str | Path) -> GeneratedSet:
    """A synthetic set, what it offers and what not.

    Raises:
        InputError: a file is missing, no synthetic set, or its images are gone.
    """
    path = Path(path)
    generated = GeneratedSet(_engine_of(path.resolve().parent))
    for data in as_dictionaries(path):
        _add(generated, path, data)
    return generated


def _engine_of(folder: Path) -> str:
    return folder.parent.name if folder.name == "shards" else folder.name


def _add(generated: GeneratedSet, path: Path, data: dict) -> None:
    store = ImageStore(path.parent / (data.get("info") or {}).get("images", "."))
    generated.names |= {category["id"]: as_text(category["name"]) for category in data["categories"]}
    generated.images |= {image["id"]: (store, image) for image in data["images"]}
    for key, labels in (("annotations", generated.kept), ("rejected", generated.rejected)):
        for label in data.get(key, []):
            labels[label["image_id"]].append(label)


# --- choosing -------------------------------------------------------------------------------------


def choose_kept(generated: GeneratedSet, count: int, seed: int) -> list[int]:
    """Ids of `count` random images with kept labels; a function of the set, the seed and nothing else."""
    ids = sorted(generated.kept)
    return sorted(random.Random(seed_for(seed, "kept")).sample(ids, min(count, len(ids))))


def choose_rejected(generated: GeneratedSet, count: int, seed: int) -> list[int]:
    """Ids of `count` images with rejected labels: in turn one for each reason, the most frequent first."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for image_id in sorted(generated.rejected):
        for reason in sorted({label["reason"] for label in generated.rejected[image_id]}):
            by_reason[reason].append(image_id)
    for reason, ids in by_reason.items():
        random.Random(seed_for(seed, "rejected", reason)).shuffle(ids)
    chosen: list[int] = []
    queues = [by_reason[reason] for reason, _ in reason_counts(generated)]
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue:
                image_id = queue.pop()
                if image_id not in chosen:
                    chosen.append(image_id)
                    break
    return chosen[:count]


def reason_counts(generated: GeneratedSet) -> list[tuple[str, int]]:
    """(reason, rejected labels), the most frequent first."""
    counts = Counter(label["reason"] for labels in generated.rejected.values() for label in labels)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


# --- drawing --------------------------------------------------------------------------------------


def gallery_page(settings: GallerySettings, sets: list[GeneratedSet]) -> Figure:
    """The page, one pair of blocks per engine."""
    cell = PAGE_WIDTH / settings.columns
    blocks = []
    for generated in sets:
        kept = choose_kept(generated, settings.kept, settings.seed)
        rejected = choose_rejected(generated, settings.rejected, settings.seed)
        blocks += [(generated, kept, _draw_kept, _kept_caption(generated), 0.05)]
        if rejected:
            blocks += [(generated, rejected, _draw_rejected, _rejected_caption(generated), 0.36)]
    heights = []
    for _, ids, _, caption, text in blocks:
        lines = ceil(max(1, len(ids)) / settings.columns)
        heights.append(lines * (cell + text) + 0.13 * (caption.count("\n") + 1) + 0.15)
    with style():
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.35), layout="constrained")
        figure.suptitle(f"{settings.title} (scale: {settings.scale})", fontsize=8, fontweight="bold")
        parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, (generated, ids, draw, caption, _) in zip(parts, blocks, strict=True):
            _block(part, generated, ids, draw, caption, settings.columns)
    return figure


Draw = Callable[[Axes, GeneratedSet, int], None]


def _block(
    part: SubFigure, generated: GeneratedSet, ids: list[int], draw: Draw, caption: str, columns: int
) -> None:
    part.suptitle(caption, fontsize=6.5, x=0.01, horizontalalignment="left")
    panels = part.subplots(ceil(max(1, len(ids)) / columns), columns, squeeze=False).flat
    for panel, image_id in zip(panels, ids, strict=False):
        store, record = generated.images[image_id]
        show_image(panel, store.image(image_name(record)))
        draw(panel, generated, image_id)
    for panel in list(part.axes)[len(ids) :]:
        panel.set_axis_off()


def _draw_kept(axes: Axes, generated: GeneratedSet, image_id: int) -> None:
    draw_instances(
        axes,
        generated.kept[image_id],
        size_of(generated, image_id),
        label=lambda _, instance: generated.names[instance["category_id"]],
    )


def _draw_rejected(axes: Axes, generated: GeneratedSet, image_id: int) -> None:
    labels = generated.rejected[image_id]
    size = size_of(generated, image_id)
    draw_instances(axes, labels, size, label=lambda position, _: str(position + 1), linestyle="--", fill=0.25)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for position, label in enumerate(labels, start=1):
        by_reason[label["reason"]].append(f"{position} {generated.names[label['category_id']]}")
    lines = [f"{', '.join(who)}: {in_words(reason)}" for reason, who in by_reason.items()]
    lines = [line for text in lines for line in textwrap.wrap(text, 50, subsequent_indent="  ")]
    write_below(axes, lines)


def write_below(axes: Axes, lines: list[str]) -> None:
    """Write lines below a picture, at most `REASON_LINES` of them."""
    if len(lines) > REASON_LINES:
        lines = [*lines[: REASON_LINES - 1], "..."]
    axes.set_xlabel("\n".join(lines), fontsize=4.5, loc="left", labelpad=2)


def size_of(generated: GeneratedSet, image_id: int) -> tuple[int, int]:
    """Height and width of an image in pixels."""
    record = generated.images[image_id][1]
    return record["height"], record["width"]


def in_words(reason: str) -> str:
    """A reason for human eyes; filters are named after their settings."""
    return reason.replace("_", " ")


def _kept_caption(generated: GeneratedSet) -> str:
    images, labels = len(generated.kept), sum(map(len, generated.kept.values()))
    text = f"{generated.name}, kept: {images} of {len(generated.images)} images with {labels} labels"
    return "\n".join(textwrap.wrap(text, 120))


def _rejected_caption(generated: GeneratedSet) -> str:
    counts = reason_counts(generated)
    reasons = ", ".join(f"{in_words(reason)} ({count})" for reason, count in counts)
    text = f"{generated.name}, rejected: {sum(count for _, count in counts)} labels; {reasons}"
    return "\n".join(textwrap.wrap(text, 120))
