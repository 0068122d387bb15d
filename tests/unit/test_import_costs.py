"""What a job loads before it begins: on a cluster every job pays for it, and a node's memory holds it.

Looked at are the modules that are loaded, not seconds, which depend on the machine.
"""

import json
import os
import subprocess
import sys

import pytest

from gen4det.core.provenance import PACKAGE_ROOT
from gen4det.detection.stand_ins import standing_in
from gen4det.engines.base import engine_module, known_methods, settings_class
from patience import patience

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "mmdet", "mmcv", "mmengine"}
STAGES = sorted(f"gen4det.stages.{path.stem}" for path in (PACKAGE_ROOT / "gen4det/stages").glob("[a-z]*.py"))


def loaded(*modules: str) -> set[str]:
    """Top-level names of all that is loaded once these modules are, in a process of their own."""
    code = f"import {', '.join(modules)}\nimport json, sys\nprint(json.dumps([*sys.modules]))"
    environment = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=patience(600)
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_the_command_line_of_a_stage_is_read_without_the_libraries_of_its_work():
    """`--help`, a wrong option and bad settings answer at once."""
    assert len(STAGES) > 12
    assert not loaded(*STAGES) & (HEAVY | {"scipy", "matplotlib", "pandas"})


def test_what_is_drawn_is_planned_without_torch():
    planners = [engine_module(method, "plan") for method in known_methods()]
    assert not loaded(*planners, "gen4det.diffusion.sources") & (HEAVY - {"transformers"})


def test_a_filter_loads_nothing_that_computes():
    there = loaded("gen4det.stages.filter")
    assert "numpy" in there and not there & (HEAVY | {"scipy", "matplotlib", "pandas", "cv2"})


def test_a_training_loads_no_diffusion_and_nothing_that_mmdet_wants_elsewhere():
    there = loaded("gen4det.detection.training", "gen4det.detection.inference")
    assert "mmdet" in there and not there & {"transformers", "diffusers"}
    assert not there & {"matplotlib", "numba", "imgaug", "imagecorruptions"}


def test_a_part_that_needs_what_is_not_loaded_says_so_and_not_that_it_is_missing():
    code = """
import importlib.util
from gen4det.core.errors import InputError
from gen4det.detection.detectors import build_model, build_pipeline
from mmengine.registry import OPTIMIZERS
assert importlib.util.find_spec("transformers")
words = dict(type="RandomSamplingNegPos", tokenizer_name="bert")
for build in (
    lambda: build_pipeline([words], where="my.py: train_pipeline"),
    lambda: build_model(dict(type="BertModel", name="bert")),
    lambda: OPTIMIZERS.build(dict(type="Adafactor")),
):
    try:
        build()
    except (InputError, NotImplementedError) as error:
        print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=patience(600)
    )
    assert done.returncode == 0, done.stderr
    words, model, optimizer = (line for line in done.stdout.splitlines() if "not loaded" in line)
    refused = "is not loaded: detectors here are run without the parts of mmdet that need it"
    start = "my.py: train_pipeline: RandomSamplingNegPos: transformers.AutoTokenizer"
    assert words == f"{start} {refused}"
    assert model == f"detector config: model: transformers.AutoTokenizer {refused}"
    assert optimizer == f"transformers.Adafactor {refused}"


def test_a_stand_in_can_be_built_upon_and_lasts_no_longer_than_asked_for():
    with standing_in("nowhere", "nowhere.part", "json.tool"):
        from json import tool

        import nowhere.part
        from nowhere.part import Layer

        class Mine(Layer):
            size = 3

    assert Mine.size == 3 and not hasattr(tool, "Layer") and "nowhere" not in sys.modules
    for ask in (Layer, Mine, lambda: Mine.load("x"), nowhere.part.function):
        with pytest.raises((NotImplementedError, AttributeError), match=r"^nowhere\.part\.\w+ is not loaded"):
            ask()
    with pytest.raises(ImportError):
        import nowhere.part  # noqa: F811


def test_detectors_and_diffusion_still_load_in_one_process():
    modules = ("gen4det.diffusion.pipelines", "gen4det.filters.clip", "matplotlib.pyplot")
    there = loaded("gen4det.detection.training", *modules)
    assert {"mmdet", "diffusers", "transformers", "matplotlib"} <= there


def test_a_generation_loads_no_detector():
    """But for engines that draw with the help of one."""
    without = [
        method for method in known_methods() if not settings_class(method).checked_steps().draw.detectors
    ]
    assert len(without) > 2
    there = loaded("gen4det.stages.generate", *(engine_module(method, "draw") for method in without))
    assert "diffusers" in there and not there & {"mmdet", "mmcv", "mmengine"}


def test_settings_load_pydantic_alone():
    """The Snakefile reads them in every job."""
    paths = (PACKAGE_ROOT / "gen4det").rglob("*settings.py")
    there = loaded(*(".".join(path.relative_to(PACKAGE_ROOT).with_suffix("").parts) for path in paths))
    assert "pydantic" in there and not there & (HEAVY | {"numpy", "PIL", "scipy", "matplotlib", "pandas"})
