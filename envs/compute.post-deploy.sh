#!/bin/sh
# Run by Snakemake inside the environment of compute.yaml, once it is made.
set -eu

# Two dependencies ask for two builds of OpenCV, which unpack into one folder. The one without windows must be the
# last: the other cannot be imported where there is no libGL, i.e. on compute nodes.
python -m pip install --force-reinstall --no-deps opencv-python-headless==4.12.0.88

# mmcv's compiled operators, where they are to be had. Without them a stand-in of our own does (slower).
#   MMCV_WHEELS=URL-OR-FOLDER   wheels for this torch and CUDA, e.g. built once for the site
#   nvcc on the PATH            builds them here: about half an hour of one core
if [ -n "${MMCV_WHEELS:-}" ]; then
    python -m pip install --force-reinstall --no-deps --no-index --find-links "$MMCV_WHEELS" onedl-mmcv==2.3.6
elif command -v nvcc >/dev/null; then
    python -m pip install setuptools wheel ninja
    MMCV_WITH_OPS=1 FORCE_CUDA=1 python -m pip install --force-reinstall --no-deps --no-build-isolation \
        --no-binary onedl-mmcv --no-cache-dir onedl-mmcv==2.3.6
fi
python -c 'import mmcv._ext' 2>/dev/null && echo "mmcv: compiled operators" || echo "mmcv: stand-in operators"
