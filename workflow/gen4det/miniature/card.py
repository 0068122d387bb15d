"""The miniature's weights in the folder that ships with the repository, with a model card beside them."""

import json
import os
import shutil
from pathlib import Path

from gen4det.core.provenance import atomic_write
from gen4det.miniature.foundation_settings import FoundationTraining

FOLDERS = {
    "diffusion": "stable-diffusion",
    "inpainting": "gligen-inpainting",
    "clip": "clip",
    "aesthetic": "aesthetic",
    "backbone": "backbone",
}
"""Names under which the models ship, by part."""


def install(settings: FoundationTraining, foundation: Path, resources: Path) -> None:
    """Copy the models, pictures of them and their losses from the folder of all parts, and write the card."""
    for part, name in FOLDERS.items():
        with atomic_write(resources / name) as temporary:
            shutil.copytree(
                foundation / part / "result",
                temporary,
                symlinks=True,
                ignore=shutil.ignore_patterns("losses*.csv", "scores.png"),
            )
            for link in filter(Path.is_symlink, list(temporary.iterdir())):  # to parts of another pipeline
                link.unlink()
                os.symlink(os.path.join("..", FOLDERS["diffusion"], link.name), link)
    pictures = {
        **{name: f"judge/result/{name}" for name in ("samples.png", "reconstructions.png", "inpainting.png")},
        "aesthetic.png": "aesthetic/result/scores.png",
        **{f"loss_{part}.png": f"{part}/losses.png" for part in ("autoencoder", *FOLDERS)},
    }
    for name, source in pictures.items():
        shutil.copyfile(foundation / source, resources / name)
    records = {p.parent.name: json.loads(p.read_text()) for p in foundation.glob("*/result.record.json")}
    judgement = json.loads((foundation / "judge" / "result" / "judgement.json").read_text())
    write_card(resources / "README.md", settings, judgement, records)


def write_card(path: Path, settings: FoundationTraining, judgement: dict, records: dict[str, dict]) -> None:
    """Write the card as Markdown.

    Args:
        judgement: contents of `judgement.json` (`judge.judge`).
        records: run records of the training parts, by part.
    """
    fidelity, reconstruction = judgement["fidelity"], judgement["reconstruction"]
    inpainting = judgement["grounded_inpainting"]
    protocol, accuracy = judgement["protocol"], judgement["judge_accuracy_on_rendered_images"]
    size = sum(
        file.stat().st_size for file in path.parent.rglob("*.safetensors") if not _linked(file, path.parent)
    )
    lines = [
        "# Foundation models of the miniature",
        "",
        "Models with the structure and the file formats of Stable Diffusion 1.x and its relatives,",
        "trained from scratch on rendered pictures of 24 kinds of objects. They serve to run and test the",
        "whole workflow on a CPU. They are good for nothing else.",
        "",
        f"- Pictures: {settings.corpus_images:,} captioned renderings of {settings.image_size} pixels, every",
        "  category equally often. Their seeds are disjoint from those of every detection split.",
        f"- Weights: half precision safetensors, {size / 1e6:.1f} MB in all.",
        "- The detector's backbone was pretrained on the categories that are not rare, nothing else.",
        "- Train them again: `snakemake --profile local miniature_foundation` (resumable; on a GPU minutes).",
        "",
        "## How good they are",
        "",
        f"A classifier trained on renderings only ({accuracy:.1%} right on",
        f"held-out renderings) called {fidelity['mean']:.1%} of the single-object samples by the prompted",
        f"name ({protocol['samples_per_category']} samples per category, {protocol['steps']} steps of",
        f"{protocol['scheduler']}, guidance {protocol['guidance']}, prompt `{protocol['prompt']}`).",
        "The aim is 85%.",
        "",
        "| category | called by its name | called instead |",
        "|---|---|---|",
    ]
    for name, share in fidelity["per_category"].items():
        wrong = sorted(judgement["called_instead"][name].items(), key=lambda item: -item[1])[:3]
        lines.append(f"| {name} | {share:.0%} | {', '.join(f'{other} {count}' for other, count in wrong)} |")
    lines += [
        "",
        f"Autoencoder on held-out pictures: mean absolute error {reconstruction['mean_absolute_error']} on",
        f"[-1, 1], {reconstruction['psnr_db']} dB.",
        "",
        "![samples](samples.png)",
        "",
        "Originals above, decoded below:",
        "",
        "![reconstructions](reconstructions.png)",
        "",
        "Grounded inpainting: objects of held-out scenes repainted in their boxes after their names. The",
        f"same classifier called {inpainting['alone']:.1%} of those repainted alone by their names,",
        f"{inpainting['together']:.1%} where all objects of a scene were repainted in one pass, and",
        f"{inpainting['originals']:.1%} of the originals, which may hide each other and are smaller than",
        "what it was trained on. Originals, one object repainted, all repainted:",
        "",
        "![inpainting](inpainting.png)",
        "",
        *_aesthetic_lines(records.get("aesthetic", {}).get("heldout")),
        "## Training",
        "",
        "| part | seconds | device | code | note |",
        "|---|---|---|---|---|",
    ]
    for part, record in sorted(records.items()):
        seconds, code, note = record["wall_seconds"], record["code"]["hash"], record.get("note", "")
        lines.append(f"| {part} | {seconds:.0f} | {record['device']} | {code} | {note} |")
    lines += [
        "",
        "Loss curves: `loss_*.png`. Seconds count the last call only if a training was resumed.",
        "",
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines))


def _aesthetic_lines(heldout: dict | None) -> list[str]:
    if heldout is None:
        return []
    by_kind = ", ".join(f"{kind} {share:.2f}" for kind, share in heldout["auc_by_kind"].items())
    return [
        "Aesthetic predictor: a head of the public predictor's kind on this CLIP's image embedding, trained",
        "to tell pictures as rendered from spoilt ones (out of focus, grainy, in coarse blocks, badly",
        "compressed, in pieces, washed out, melted). CLIP's image tower has had a lesson in that before.",
        f"On {heldout['images']} held-out pictures the rank correlation of score and quality is",
        f"{heldout['rank_correlation']:.2f}. A picture as rendered scores above a spoilt one with",
        f"probability {heldout['auc']:.2f}, and {heldout['auc_local']:.2f} if only the boxes of its objects",
        f"are spoilt (by kind: {by_kind}).",
        "Scores of held-out pictures, and spoilt ones from the worst to the best:",
        "",
        "![aesthetic scores](aesthetic.png)",
        "",
    ]


def _linked(file: Path, root: Path) -> bool:
    return any(parent.is_symlink() for parent in file.parents if parent != root and root in parent.parents)
