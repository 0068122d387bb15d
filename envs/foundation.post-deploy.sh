#!/bin/sh
# Run by Snakemake inside the environment of foundation.yaml, once it is made; see detect.post-deploy.sh.
set -eu
python -m pip install --force-reinstall --no-deps opencv-python-headless==4.12.0.88
