"""Features of training images that are computed once: as anew, whatever else is in a batch or was before."""

from pathlib import Path

import pytest
import torch
from tiny_adapter import World, config_file
from tiny_detector import StopAfter

from gen4det.core.errors import InputError
from gen4det.detection.settings import DetectorSettings, TrainSettings
from gen4det.diffusion.frozen import FrozenFeatures
from gen4det.diffusion.kept_features import KeptFeatures


@pytest.fixture
def evaluations(frozen) -> list[int]:
    """Images of each evaluation of the U-Net from now on."""
    calls: list[int] = []
    hook = frozen.unet.register_forward_pre_hook(lambda module, arguments: calls.append(len(arguments[0])))
    yield calls
    hook.remove()


def images(number: int) -> torch.Tensor:
    return torch.rand(number, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_an_image_is_seen_once_and_what_is_kept_depends_on_nothing_else(frozen, evaluations, tmp_path):
    kept, pixels = KeptFeatures(frozen, tmp_path / "a", 1), images(3)
    first = kept(pixels)
    assert evaluations == [1, 1, 1]
    again = kept(pixels.flip(0))
    alone = KeptFeatures(frozen, tmp_path / "b", 1)(pixels[2:])
    assert evaluations == [1, 1, 1, 1]
    for level, turned, one in zip(first, again, alone, strict=True):
        assert level.dtype == torch.float32
        assert torch.equal(level, turned.flip(0)) and torch.equal(level[2:], one)


def test_kept_features_are_the_models_own_rounded_to_half_precision(frozen, tmp_path, monkeypatch):
    given = []
    features = FrozenFeatures.__call__
    monkeypatch.setattr(FrozenFeatures, "__call__", lambda *them: given.append(them[1:]) or features(*them))
    found = KeptFeatures(frozen, tmp_path, 1)(images(1))
    for level, expected in zip(found, features(frozen, *given[0]), strict=True):
        assert torch.equal(level, expected.half().float())
    assert all(abs(float(noise.std()) - 1) < 0.2 for noise in given[0][1:])


def test_each_of_several_noises_comes_and_a_mirrored_image_is_another(frozen, evaluations, tmp_path):
    kept, pixels = KeptFeatures(frozen, tmp_path, 3), images(1)
    torch.manual_seed(0)
    seen = {kept(pixels)[0].numpy().tobytes() for _ in range(40)}
    assert len(seen) == 3 == len(evaluations) == len(list(tmp_path.iterdir()))
    kept(pixels.flip(3))
    assert len(evaluations) == 4


def test_features_that_half_precision_cannot_keep_are_refused(frozen, tmp_path, monkeypatch):
    monkeypatch.setattr(FrozenFeatures, "__call__", lambda *_: [torch.full((1, 2, 4, 4), 1e6)])
    with pytest.raises(InputError, match="kept_draws: features beyond 65504"):
        KeptFeatures(frozen, tmp_path, 1)(images(1))
    assert not list(tmp_path.iterdir())


def test_a_stopped_training_goes_on_with_what_it_kept_and_leaves_none_behind(
    diffusion_folder, frozen, evaluations, tmp_path
):
    world = World(tmp_path, diffusion_folder)
    config = Path(config_file(tmp_path, "faster_rcnn"))
    config.write_text(config.read_text() + "model['backbone'] = dict(kept_draws=1)\n")
    settings = TrainSettings(
        detector=DetectorSettings(config=str(config), diffusion={"path": str(diffusion_folder)})
    )

    def train(run: str, **options):
        return world.train("faster_rcnn", run, settings=settings, **options)

    result, whole = train("whole")
    assert result.finished and not (whole.parent / "work").exists()
    assert set(evaluations) == {1}
    assert not train("stopped", stop=StopAfter(3))[0].finished
    assert list((tmp_path / "stopped-faster_rcnn/work/features").iterdir())
    before = len(evaluations)
    assert train("stopped")[1].read_bytes() == whole.read_bytes()
    assert (
        len(evaluations) - before < before / 2
    )  # six iterations of two images, half of them before the stop
