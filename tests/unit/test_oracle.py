"""The oracle draws what another engine planned, with labels that are exact, and in the miniature alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from gen4det.core.errors import InputError
from gen4det.core.yaml_files import merge, read_yaml
from gen4det.data.manifests import check_rows, write_manifest
from gen4det.data.masks import box_of_rle, rle_to_mask
from gen4det.engines.base import Inputs, check_inputs
from gen4det.engines.oracle.draw import Drawer
from gen4det.engines.oracle.plan import Planner
from gen4det.engines.oracle.settings import Settings
from gen4det.engines.steps import Step
from gen4det.miniature.canvases import random_regions
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project


def planned(index: int) -> dict:
    """A row as MosaicFusion plans it."""
    regions = [
        it | {"box": it["core"], "prompt": "a photo", "tokens": [4]} for it in random_regions(index, 128)
    ]
    return {
        "index": index, "batch": index // 2, "seed": 100 + index, "height": 128, "width": 128,
        "main_category_id": 1, "number": 0, "regions": regions,
    }  # fmt: skip


@pytest.fixture
def manifest(tmp_path):
    write_manifest(tmp_path / "manifest.jsonl", [planned(index) for index in range(3)])
    return tmp_path / "manifest.jsonl"


def plan(manifest) -> list[dict]:
    return Planner(Settings(), None, 0, Inputs(None, manifest=manifest)).plan()


def test_the_oracle_takes_what_is_asked_for_and_not_how(manifest):
    rows = plan(manifest)
    check_rows(rows)
    for row, other in zip(rows, map(planned, range(3)), strict=True):
        assert {key: row[key] for key in ("index", "batch", "seed")} == {
            key: other[key] for key in ("index", "batch", "seed")
        }
        assert "main_category_id" not in row
        for region, asked in zip(row["regions"], other["regions"], strict=True):
            assert region == {key: asked[key] for key in ("category_id", "box", "core")}


def test_a_manifest_that_is_not_of_canvases_is_refused(tmp_path):
    rows = [{"index": 0, "batch": 0, "seed": 1, "height": 128, "width": 128, "objects": []}]
    write_manifest(tmp_path / "manifest.jsonl", rows)
    with pytest.raises(InputError, match="oracle: of: mosaicfusion: image 0 is no canvas"):
        plan(tmp_path / "manifest.jsonl")


def test_what_the_oracle_draws_is_labelled_exactly(manifest):
    rows = plan(manifest)
    ((first, second), (third,)) = Drawer(Settings(), None, 0, Inputs(None)).synthesize([rows[:2], rows[2:]])
    for generated, row in zip((first, second, third), rows, strict=True):
        assert generated.row == row and generated.keep and not generated.rejected
        assert generated.image.shape == (128, 128, 3)
        assert [it.category_id for it in generated.instances] == [it["category_id"] for it in row["regions"]]
        for instance, region in zip(generated.instances, row["regions"], strict=True):
            assert box_of_rle(instance.rle) == instance.bbox
            x, y, w, h = region["core"]
            mask = rle_to_mask(instance.rle)
            assert mask[y : y + h, x : x + w].sum() == mask.sum() > 0
    ((again,),) = Drawer(Settings(), None, 0, Inputs(None)).synthesize([rows[2:]])
    assert np.array_equal(again.image, third.image)  # batches do not influence each other


def test_a_step_that_reads_a_manifest_says_when_there_is_none():
    step = Step("images", "draw", manifest_of="of")
    with pytest.raises(InputError, match="give --reads manifest=FILE"):
        check_inputs(step, Settings(), Inputs(None))
    check_inputs(step, Settings(), Inputs(None, manifest="manifest.jsonl"))


# --- in the workflow ----------------------------------------------------------------------------------


def project(root, scale: str = "config", **changes):
    values = merge(read_yaml(root / f"config/{scale}.yaml"), {"studies": ["lvis_rare_controls"], **changes})
    return load_project(values, source="test.yaml", root=root)


def test_the_oracle_reads_the_manifest_of_the_engine_it_stands_in_for(request):
    jobs = Jobs(project(request.config.rootpath))
    wildcards = SimpleNamespace(dataset="lvis", engine="oracle")
    path = "results/miniature/synthetic/lvis/mosaicfusion/manifest.jsonl"
    assert jobs.reads("draw")(wildcards) == [path]
    assert jobs.read_names("draw")(wildcards) == [f"manifest={path}"]
    assert "mosaicfusion" in jobs.project.engines
    assert jobs.reads("draw")(SimpleNamespace(dataset="lvis", engine="mosaicfusion")) == []


def test_rows_of_a_study_may_be_of_one_scale_alone(request):
    root = request.config.rootpath
    miniature, paper = (project(root, scale).studies["lvis_rare_controls"] for scale in ("config", "paper"))
    assert [*miniature.trainings] == [*paper.trainings, "oracle"]
    assert [*paper.table.arms] == [*paper.trainings]
    assert "oracle" not in project(root, "paper").engines


def test_the_controls_differ_from_mosaicfusion_in_one_setting_each(request):
    trainings = project(request.config.rootpath).studies["lvis_rare_controls"].trainings
    plain = trainings["mosaicfusion"].settings.model_dump()
    for row, changed in (("real-repeated", {"replay_real"}), ("mosaicfusion-each", {"repeat_by"})):
        own = trainings[row].settings.model_dump()
        assert {key for key in own if own[key] != plain[key]} == changed
        assert trainings[row].synthetic == ("mosaicfusion",)


def test_an_oracle_of_nothing_or_of_an_oracle_is_refused(request):
    root = request.config.rootpath
    with pytest.raises(InputError, match=r"oracle\.of: no such engine 'mosaicfusio'; did you mean"):
        project(root, engines={"oracle": {"of": "mosaicfusio"}})
    with pytest.raises(InputError, match=r"oracle\.of: 'oracle' plans nothing itself"):
        project(root, engines={"oracle": {"of": "oracle"}})
