#!/bin/sh
# diffusers: the image processor resizes pictures with Lanczos, but tensors and arrays by taking every n-th pixel.
#
# Expected: pipelines take an image as a Pillow picture, an array or a tensor. The processor has one setting, resample
#   ("lanczos" by default), so that the same image gives the same latents whatever holds it.
# Happens: the setting is for Pillow only. Arrays and tensors are resized by nearest neighbour, without a word. A
#   pattern of 2 pixels that is reduced 4 times becomes an even grey as a picture, and plain black as a tensor.
# Means: image-to-image, inpainting and the encoding of training images differ between a script that opens files and
#   one that has a data loader: thin and small objects vanish or break in the second, and its latents are of aliased
#   images. Resize tensors yourself (interpolate with antialias=True) to the size that the pipeline is asked for.
#
# Installs diffusers 0.42.1, torch 2.13.0 and pillow 13.0.0 into a temporary folder. Exits with 1 when the behaviour has
# changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq torch==2.13.0 diffusers==0.42.1 pillow==13.0.0 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import sys

import diffusers
import numpy
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

SIZE, SMALL = 512, 128
rows, columns = numpy.mgrid[:SIZE, :SIZE]
LINE = ((columns - 201) // 2 == 0) * 255  # white, two columns wide, on black
CHECKS = (rows // 2 + columns // 2) % 2 * 255


def brightness(picture):
    """Mean brightness (0 to 1) of the picture reduced to a quarter, by what holds it, and the processor's setting."""
    picture = numpy.repeat(picture[..., None], 3, axis=2).astype(numpy.uint8)
    array = picture[None].astype(numpy.float32) / 255
    processor = VaeImageProcessor(vae_scale_factor=8)
    means = {}
    for name, image in (
        ("picture", Image.fromarray(picture)),
        ("array", array),
        ("tensor", torch.from_numpy(array).permute(0, 3, 1, 2)),
    ):
        result = processor.preprocess(image, height=SMALL, width=SMALL)
        assert result.shape == (1, 3, SMALL, SMALL)
        means[name] = round(float(result.mean()) / 2 + 0.5, 3)
    return means, processor.config.resample


print(f"diffusers {diffusers.__version__}, torch {torch.__version__}")
seen = {}
for name, picture in (("white line", LINE), ("checks of 2 pixels", CHECKS)):
    seen[name], resample = brightness(picture)
    print(f"  {name:19} brightness {picture.mean() / 255:.3f}; resample={resample!r} gives {seen[name]}")
line, checks = seen["white line"], seen["checks of 2 pixels"]
sound = abs(line["picture"] - 2 / SIZE) < 0.002 and abs(checks["picture"] - 0.5) < 0.01
if not sound or any(row[kind] > 0.001 for row in (line, checks) for kind in ("array", "tensor")):
    sys.exit("CHANGED: this is no longer what happens")
print("as described: as array or tensor the line is gone and the checks are black")
PYTHON
