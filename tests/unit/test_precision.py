"""float32 means float32 in matrix products and in convolutions, and the record says which."""

import json

import pytest
import torch

from gen4det.core import precision
from gen4det.core.provenance import RunRecord
from gen4det.diffusion.pipelines import set_precision
from gen4det.diffusion.settings import DenoisingSettings
from tiny_models import tiny_pipeline


@pytest.fixture(autouse=True)
def torchs_defaults():
    """As a process begins: products exact, convolutions not."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


def switches():
    cuda = torch.backends.cuda.matmul.allow_tf32
    return cuda, torch.get_float32_matmul_precision() != "highest", torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_float32_is_exact_in_products_and_convolutions(name):
    assert switches() == (False, False, True)
    precision.set_float32_arithmetic("tf32")
    assert switches() == (True, True, True)
    precision.set_float32_arithmetic(name)
    assert switches() == (False, False, False)


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_a_generators_precision_sets_both(name):
    set_precision(tiny_pipeline(blocks=3, layers=1), DenoisingSettings(precision=name))
    assert set(switches()) == {name == "tf32"}


def test_the_record_says_how_float32_was_multiplied(tmp_path, monkeypatch):
    def recorded():
        with RunRecord(tmp_path / "x", settings={}, code=("gen4det.core.errors",)):
            pass
        return json.loads((tmp_path / "x.record.json").read_text())["arithmetic"]

    for name in ("float32", "tf32"):
        precision.set_float32_arithmetic(name)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert recorded() == {"matrix products": name, "convolutions": name}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert recorded()["convolutions"] == "float32"  # on the CPU they always are
    monkeypatch.setitem(precision.sys.modules, "torch", None)
    assert precision.float32_arithmetic() == {}


def test_a_stage_on_a_gpu_begins_exact(monkeypatch):
    from gen4det.stages._device import torch_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto") == "cuda"
    assert switches() == (False, False, False)
