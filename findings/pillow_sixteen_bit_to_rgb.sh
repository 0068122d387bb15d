#!/bin/sh
# Pillow: a picture of 16 bits becomes white when it is converted to RGB; OpenCV scales the same file.
#
# Expected: convert("RGB") turns a picture of any kind into the 8-bit colours that models take: it is the line that
#   almost every data loader begins with. 65535 becomes 255, 32768 becomes 128.
# Happens: values above 255 are cut off, not scaled: of a full grey ramp 99.6 % become pure white. convert("L") does the
#   same. cv2.imread, with its defaults, divides by 256.
# Means: in PNG or TIFF files of 16 bits (X-ray, thermal, depth, raw converters) a loader by Pillow sees white pictures,
#   with correct size and annotations, while a detector that reads by OpenCV sees the content: CLIP scores, filters, FID
#   and generators are trained or computed on nothing, and no error tells. Scale the array before converting.
#
# Installs pillow 13.0.0 and opencv-python-headless 4.12.0.88 into a temporary folder. Exits with 1 when the behaviour
# has changed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq pillow==13.0.0 opencv-python-headless==4.12.0.88 numpy==2.2.6
"$work/venv/bin/python" - "$work/ramp.png" <<'PYTHON'
import sys

import cv2
import numpy
import PIL
from PIL import Image

path = sys.argv[1]
Image.fromarray(numpy.arange(65536, dtype=numpy.uint16).reshape(256, 256)).save(path)
with Image.open(path) as image:
    print(f"Pillow {PIL.__version__}, OpenCV {cv2.__version__}: grey ramp from 0 to 65535, mode {image.mode}")
    read = {
        'Pillow, convert("RGB")': numpy.asarray(image.convert("RGB")),
        'Pillow, convert("L")': numpy.asarray(image.convert("L")),
        "cv2.imread": cv2.imread(path),
    }
seen = {}
for name, pixels in read.items():
    seen[name] = round(float(pixels.mean()), 1), round(float((pixels == 255).mean()), 3)
    print(f"  {name:23} {pixels.dtype}, mean {seen[name][0]:5}, share of white {seen[name][1]:.1%}")
if list(seen.values()) != [(254.5, 0.996), (254.5, 0.996), (127.5, 0.004)]:
    sys.exit("CHANGED: this is no longer what happens")
print("as described: read by Pillow the ramp is white, read by OpenCV it is a ramp")
PYTHON
