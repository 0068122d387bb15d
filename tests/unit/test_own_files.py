"""A user's own files: a picture that is exchanged is noticed, and any path is a path."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import own_annotations
from gen4det.core.errors import InputError
from gen4det.core.yaml_files import read_yaml
from gen4det.data.photographs import register_photographs
from gen4det.data.pictures_seen import UNSEEN, seen_file
from gen4det.detection.config_files import learns_masks
from gen4det.orchestration.hashes import sampled_hash
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.own_files import pictures_token
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mine(tmp_path) -> Path:
    return own_annotations.write(tmp_path / "mine")


class Checked:
    """A data set that is checked as a job does it, with the tokens that the Snakefile gives."""

    def __init__(self, folder: Path, output: Path, **options):
        self.settings = own_annotations.settings(folder, **options)
        self.descriptor = output / "dataset.json"
        self.check()

    def tokens(self) -> dict[str, str]:
        """As a new process would find them."""
        return {
            split: pictures_token(
                seen_file(self.descriptor, split), Path(getattr(self.settings, split).images)
            )
            for split in ("train", "val")
        }

    def check(self) -> dict[str, str]:
        tokens = self.tokens()
        register_photographs("mine", self.settings, self.descriptor, tokens=tokens)
        return tokens


def exchange(path: Path, other: Path) -> None:
    """Other pixels under the same name."""
    path.write_bytes(other.read_bytes())


def test_a_picture_that_is_exchanged_is_checked_once_more_and_only_once(mine, tmp_path):
    checked = Checked(mine, tmp_path / "out")
    assert checked.tokens() == {"train": UNSEEN, "val": UNSEEN}
    before = checked.descriptor.read_bytes()
    exchange(mine / "val" / "val3.png", mine / "val" / "val2.png")
    tokens = checked.tokens()
    assert tokens["val"] != UNSEEN and tokens["train"] == UNSEEN
    assert checked.check() == tokens == checked.tokens()
    assert checked.descriptor.read_bytes() != before
    exchange(mine / "val" / "val4.png", mine / "val" / "val2.png")
    assert checked.tokens()["val"] not in (tokens["val"], UNSEEN)


def test_another_time_alone_is_no_change(mine, tmp_path):
    checked = Checked(mine, tmp_path / "out")
    for path in (mine / "train").iterdir():
        os.utime(path, ns=(0, 0))
    assert checked.tokens() == {"train": UNSEEN, "val": UNSEEN}
    seen = json.loads(seen_file(checked.descriptor, "train").read_text())
    assert {time for _, time, _ in seen["files"].values()} == {0}  # so that they are not read every time


def test_a_picture_that_is_deleted_is_noticed_and_named(mine, tmp_path):
    checked = Checked(mine, tmp_path / "out")
    (mine / "train" / "train3.png").unlink()
    assert checked.tokens()["train"] != UNSEEN
    with pytest.raises(InputError, match=r"train3\.png: no such image"):
        checked.check()
    assert checked.tokens()["train"] != UNSEEN


def test_files_that_no_annotation_names_do_not_count(mine, tmp_path):
    checked = Checked(mine, tmp_path / "out")
    (mine / "train" / "another.png").write_bytes(b"seen")
    assert checked.tokens() == {"train": UNSEEN, "val": UNSEEN}


def test_pictures_in_a_zip_are_noticed(mine, tmp_path):
    def pack() -> None:
        shutil.make_archive(str(mine / "photos"), "zip", mine / "train")

    pack()
    place = {"annotations": str(mine / "train.json"), "images": str(mine / "photos.zip")}
    checked = Checked(mine, tmp_path / "out", train=place)
    assert checked.tokens()["train"] == UNSEEN
    exchange(mine / "train" / "train3.png", mine / "train" / "train2.png")
    assert checked.tokens()["train"] == UNSEEN
    pack()
    assert checked.tokens()["train"] != UNSEEN


# --- what the rules are told ------------------------------------------------------------------------


def jobs_of(folder: Path, **changes) -> Jobs:
    values = read_yaml(ROOT / "config/photographs.yaml")
    data = own_annotations.settings(folder, format="lvis").model_dump()
    return Jobs(load_project(values | {"datasets": {"lvis": data}} | changes, source="mine.yaml", root=ROOT))


def test_the_job_that_checks_the_data_knows_the_pictures(mine, tmp_path):
    jobs = jobs_of(mine, results=str(tmp_path / "results"))
    settings = own_annotations.settings(mine, format="lvis")
    register_photographs("lvis", settings, jobs.dataset(SimpleNamespace(dataset="lvis")))

    def job() -> dict:
        return json.loads(jobs.data(SimpleNamespace(dataset="lvis")))

    before = job()
    assert job() == before
    exchange(mine / "train" / "train0.png", mine / "train" / "train1.png")
    after = job()
    assert [key for key in before if before[key] != after[key]] == ["pictures"]


@pytest.mark.parametrize("name", ["my {x} data", "{train}", "a{b,c}", "a}{"])
def test_braces_in_a_path_are_no_wildcards(tmp_path, name):
    """Snakemake fills in what stands in braces in the names of inputs."""
    mine = own_annotations.write(tmp_path / name)
    jobs, wildcards = jobs_of(mine), SimpleNamespace(dataset="lvis")
    assert jobs.own_files(wildcards) == []
    before = jobs.data(wildcards)
    (mine / "val.json").write_text((mine / "val.json").read_text() + " ")
    sampled_hash.cache_clear()
    assert jobs.data(wildcards) != before


def test_the_job_that_checks_the_data_is_told_who_learns_masks(mine):
    """Not in its parameter: another detector draws nothing again."""

    def told(config: str) -> str:
        jobs = jobs_of(mine, detectors={"mask-rcnn": {"config": config}})
        assert config not in jobs.data(SimpleNamespace(dataset="lvis"))
        return jobs.mask_detectors(SimpleNamespace(dataset="lvis"), [])

    config = "config/detectors/miniature_mask_rcnn.py"
    assert told(config) == f"--mask-detectors {config}"
    assert told("config/detectors/miniature_faster_rcnn.py") == ""


def test_a_config_that_says_nothing_of_masks_learns_what_its_base_learns(tmp_path):
    for name, learns in (
        ("miniature_mask_rcnn", True),
        ("lvis_mask_rcnn_r50_fpn", True),
        ("miniature_faster_rcnn", False),
        ("lvis_faster_rcnn_r50_fpn", False),
    ):
        base = ROOT / "config" / "detectors" / f"{name}.py"
        (tmp_path / f"{name}.py").write_text(f"_base_ = {str(base)!r}\nmax_iters = 5\n")
        assert learns_masks(base) == learns_masks(tmp_path / f"{name}.py") == learns


def test_mosaicfusion_draws_every_group_of_ones_own_data(mine):
    engine = jobs_of(mine).project.engines["mosaicfusion"].settings
    assert engine.main_groups == ("r", "c", "f")
