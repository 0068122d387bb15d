"""The text of the scale file that `make own` writes."""

import json
from collections.abc import Sequence
from pathlib import Path

MASKS = "masks"

HEAD = """\
# Your own data: written once by `make own`, yours to change. Every key and its meaning: config/reference.yaml
#   make own OWN={file}                              goes on with this file
#   snakemake --profile local --configfile {file}    the same without make
#   make plan CONFIGFILE={file}                      what it costs

scale: own
results: results/own
"""

TABLE = """\
studies: [own]
arms:
  own: [{arms}] # rows of config/studies/own.yaml
seeds: [0] # [0, 1, 2]: mean and spread over three trainings
"""

NO_TABLE = """\
# No table: it needs real validation images. With annotated photographs: studies: [own], and a folder below.
studies: []
"""

MODELS = """\
run_seed: 0
shards: 1

# The miniature's small models know two dozen things, drawn like cartoons: they show the way through on two
# cores. For real use take Stable Diffusion, and leave out what `engines` says of sizes:
#   diffusion: {path: results/downloads/models/stable-diffusion-1-4}
foundation:
  diffusion: {path: resources/miniature/stable-diffusion}
  inpainting: {path: resources/miniature/gligen-inpainting}
  clip: {path: resources/miniature/clip}
  aesthetic: {path: resources/miniature/aesthetic}

"""

PHOTOGRAPHS = """\
datasets:
  own:
    source: photographs
    format: coco # generic average precision; lvis: by rare, common and frequent categories
    folder: {folder} # COCO, LVIS, PASCAL VOC or YOLO; recognised
    on_bad_annotation: refuse # drop: leave bad ones out, with their reasons in dropped.json
    validation_share: 0.2 # of undivided data, set apart category by category
    allow_empty_categories: true
"""

MASK_DETECTOR = """
detectors:
  own: # every object has a mask; with a GPU e.g. config/detectors/lvis_mask_rcnn_r50_fpn.py
    config: config/detectors/photographs_mask_rcnn.py # sees images at 256 px, for two cores
    backbone_weights: resources/miniature/backbone/model.safetensors
    iterations: 200 # batches of 8 images
"""

BOX_DETECTOR = """
detectors:
  own: # boxes alone; with a GPU e.g. config/detectors/coco_faster_rcnn_r50_fpn.py
    config: config/detectors/photographs_faster_rcnn.py # sees images at 256 px, for two cores
    backbone_weights: resources/miniature/backbone/model.safetensors
    iterations: 200 # batches of 8 images
"""

ENGINES = {
    "mosaicfusion": "mosaicfusion",
    "gen2det": "gen2det",
    "instagen": "instagen-closed",
    "diffusionengine": "diffusionengine",
    "detdiffusion": "detdiffusion-hard",
}
"""Rows of the study `own` beside the real images, and the variant of an engine that each is about."""

# The labeller of DiffusionEngine, a detector on the frozen diffusion model.
ADAPTER = """\
  adapter: # labels what diffusionengine draws; learns from the real images
    config: config/detectors/photographs_diffusion_faster_rcnn.py
    diffusion: {path: resources/miniature/stable-diffusion}
    iterations: 200
"""

SETTINGS = {
    "mosaicfusion": """\
  mosaicfusion:
{rarest}    images_per_category: 8
    canvases_per_geometry: 4
    region_height: 64 # these sizes, token, steps and the solver are for the miniature's model
    region_width: 64
    overlap_height: 8
    overlap_width: 8
    token: phrase
    denoising: {{scheduler: dpm-solver++, steps: 15, guidance: 5.0}}
    masks:
      solver: {{sigma_spatial: 8, sigma_luma: 8, sigma_chroma: 8}}
""",
    "gen2det": """\
  gen2det:
    references: 60 # so many training images are painted anew, those with rare categories first
    reference_order: rare-first
    max_boxes: 1 # this and all below are for the miniature's painter
    box_order: rare-first
    size: {{height: 128, width: 128}}
    denoising: {{scheduler: dpm-solver++, steps: 8, guidance: 4.0}}
    feather: 2
    filter: {{aesthetic: {{enabled: false}}, agreement: {{enabled: false}}}}
""",
    "instagen": """\
  instagen-closed:
    labeller: {{detector: own}} # the detector of the real images labels what was drawn
    alpha: 0.3 # least score of a label; published: 0.8
    size: 64 # this and all below are for the miniature's model
    generator:
      epochs: 1
      batch_size: 16
      ema_decay: 0.99
      min_snr: 5.0
      without_caption: 0.1
      checkpointing: false
    images:
      base_per_category: 8
      pairs: 0.1
      denoising: {{scheduler: ddim, steps: 15, guidance: 4.0}}
      batch_size: 16
    image_format: png
""",
    "diffusionengine": """\
  diffusionengine:
    references: 60 # so many training images are drawn anew
    generations_per_reference: 1
    size: {{short: 128, long: 128}} # this and all below are for the miniature's model
    sampling: {{steps: 20, guidance: [3.0, 6.0]}}
""",
    "detdiffusion": """\
  detdiffusion-hard:
    detector: {{detector: own}} # tells easy objects from hard ones
    layouts: {{min_objects: 1}} # published: images of 3 to 8 objects
    references: 60 # so many layouts of training images are drawn
    words: {{columns: 16, rows: 16}} # this and all below are for the miniature's model
    size: {{height: 64, width: 64}}
    generator:
      steps: 200
      batch: 8
      parts: 1
      learning_rate: 6.0e-4
      warmup: 30
      precision: float32
      checkpointing: false
      ema_decay: 0.98
      perception: {{channels: 32}}
    denoising: {{scheduler: dpm-solver++, steps: 15, guidance: 4.0}}
""",
}
RAREST = (
    "    main_rarest: 0.5 # the half of the categories with the fewest training images; or their number\n"
)

NEEDS = """\

needs:
  generate: {threads: 2, mem_mb: 4000, runtime: 120}
  train: {threads: 2, mem_mb: 4000, runtime: 240}
  predict: {threads: 2, mem_mb: 4000, runtime: 60}
"""


def own_file(
    file: str, folder: Path | None, names: Sequence[tuple[str, str]], engines: Sequence[str], *, masks: str
) -> str:
    """Text of the file, YAML with comments.

    Args:
        file: its own path.
        folder: of images and annotations; None: names alone.
        names: (name, definition), where nothing is annotated.
        engines: rows of the table beside the real images.
        masks: `MASKS` where a detector can learn them, else empty.
    """
    arms = ", ".join(["real", *engines])
    merged = ", merged: true" if folder is not None else ""
    exports = "".join(
        f"  - {{dataset: own, engine: {ENGINES[engine]}, layout: {layout}{merged}}}\n"
        for engine in engines
        for layout in ("coco", "yolo")
    )
    parts = [
        HEAD.format(file=file),
        TABLE.format(arms=arms) if folder is not None else NO_TABLE,
        "exports: # for use elsewhere; layouts: coco, yolo, voc, imagefolder\n" + exports,
        MODELS,
    ]
    if folder is not None:
        parts += [PHOTOGRAPHS.format(folder=json.dumps(str(folder.resolve())))]
        parts += [MASK_DETECTOR if masks else BOX_DETECTOR, ADAPTER * ("diffusionengine" in engines)]
    else:
        parts += [
            "datasets:\n  own:\n    source: names\n    names:\n",
            *map(_name, names),
            "\ndetectors: {}\n",
        ]
    rarest = RAREST if folder is not None else ""
    parts += ["\nengines:\n", *(SETTINGS[engine].format(rarest=rarest) for engine in engines), NEEDS]
    return "".join(parts)


def _name(pair: tuple[str, str]) -> str:
    name, definition = (json.dumps(text, ensure_ascii=False) for text in pair)
    return f"      - {{name: {name}, definition: {definition}}}\n" if pair[1] else f"      - {name}\n"
