"""The miniature's aesthetic predictor: pictures spoilt on purpose, and a head that tells."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from gen4det.filters.aesthetic import AestheticHead, AestheticRater, load_head
from gen4det.miniature.aesthetic import BEST, WORST, draw_pair, train_aesthetic
from gen4det.miniature.degradation import KINDS, degrade
from gen4det.miniature.foundation_job import FoundationJob
from gen4det.miniature.foundation_settings import FoundationTraining

SHIPPED = Path(__file__).parents[2] / "resources/miniature"
SETTINGS = FoundationTraining(aesthetic_scenes=48, aesthetic_steps=60)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return draw_pair(SETTINGS, "test", 0).clean


@pytest.mark.parametrize("kind", KINDS)
def test_the_stronger_the_more_is_spoilt(kind, scene):
    def change(strength: float) -> float:
        spoilt = [degrade(scene, kind, strength, np.random.default_rng(seed)) for seed in range(5)]
        assert all(image.shape == scene.shape and image.dtype == np.uint8 for image in spoilt)
        return float(np.mean([np.abs(image.astype(float) - scene).mean() for image in spoilt]))

    assert 0 < change(0.2) < change(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_inside_boxes_means_nowhere_else(kind, scene):
    spoilt = degrade(scene, kind, 1.0, np.random.default_rng(0), [(10, 20, 30, 40), (60, 60, 50, 9)])
    changed = (spoilt != scene).any(2)
    assert changed[20:60, 10:40].any()
    changed[20:60, 10:40] = changed[60:69, 60:110] = False
    assert not changed.any()


def test_pairs_are_a_function_of_stream_and_number():
    one, again, other, held = (
        draw_pair(SETTINGS, *which) for which in (("a", 3), ("a", 3), ("a", 4), ("b", 3))
    )
    assert np.array_equal(one.spoilt, again.spoilt) and np.array_equal(one.clean, again.clean)
    for different in (other, held):
        assert not np.array_equal(one.clean, different.clean)
    assert all(WORST <= pair.quality < BEST for pair in (one, other, held))


def test_a_head_learns_what_its_embedding_shows(tmp_path):
    """An embedding of three plain statistics is enough to rank noise and flatness."""

    def embed(images: list[np.ndarray]) -> torch.Tensor:
        rows = []
        for image in images:
            grey = image.mean(2)
            edges = np.abs(np.diff(grey, axis=1))
            rows.append([1.0, np.log1p(edges.mean()), np.log1p(np.median(edges)), grey.std() / 60])
        return torch.tensor(rows, dtype=torch.float32)

    torch.manual_seed(0)
    settings = SETTINGS.model_copy(update={"aesthetic_steps": 250})
    job = FoundationJob(settings, {}, tmp_path / "model/result", tmp_path / "model/work")
    facts = train_aesthetic(job, AestheticHead(4), embed, heldout=60)["heldout"]
    assert facts["auc"] > 0.65 and facts["rank_correlation"] > 0.2 and facts["images"] == 120
    assert set(facts["auc_by_kind"]) == set(KINDS)
    assert (job.output / "scores.png").read_bytes().startswith(b"\x89PNG")
    head = load_head(job.output, 4)
    flat, plain = (np.full((64, 64, 3), 90, np.uint8), draw_pair(SETTINGS, "plain", 1).clean)
    scores = head(embed([flat, plain]))
    assert torch.isfinite(scores).all() and scores[1] != scores[0]


def test_the_shipped_head_tells_clean_pictures_from_spoilt_ones():
    folder = SHIPPED / "aesthetic"
    rater = AestheticRater(str(SHIPPED / "clip"), None, str(folder))
    pairs = [draw_pair(FoundationTraining(), "shipped", index) for index in range(60)]
    clean, spoilt = (
        rater.head(rater.encoder.embed(np.stack([rater.encoder.preprocess(image) for image in images])))
        for images in ([pair.clean for pair in pairs], [pair.spoilt for pair in pairs])
    )
    share = mannwhitneyu(clean.numpy(), spoilt.numpy()).statistic / len(pairs) ** 2
    promised = json.loads((folder / "config.json").read_text())["heldout"]["auc"]
    assert share > promised - 0.12  # three standard errors of 60 pairs
    assert (folder / "model.safetensors").stat().st_size < 2**20
