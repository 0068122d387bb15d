"""Fit and label steps as stages, with the test engine: resuming, refusing, labelling without drawing."""

import json
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_shards import dataset, generate, manifest, stage, step, whole  # noqa: F401

from filtered import split_labels
from gen4det.core.errors import InputError
from gen4det.data.images import ImageStore
from gen4det.data.shards import image_folder, load_run, load_shard, read_array, shard_identity
from gen4det.filters.settings import FilterSettings


def fit(dataset, output: Path, *reads: str, name: str = "palette", status: int = 0, settings=None, **more):
    arguments = ["--dataset", dataset, "--output", output, "--device", "cpu"]
    arguments += ["--reads", *reads] if reads else []
    return stage("fit", *arguments, settings=settings or step(name), status=status, **more)


def label(dataset, manifest, shard: Path, gauge: Path, output: Path, status: int = 0, **settings) -> str:
    return stage(
        "label", "--dataset", dataset, "--manifest", manifest, "--shard", shard, "--reads", f"gauge={gauge}",
        "--output", output, "--device", "cpu", settings=step("labels", **settings), status=status,
    )  # fmt: skip


def one_line(errors: str) -> str:
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def gauge(dataset, whole, tmp_path_factory) -> Path:
    """The model of the second fit, learned from what was drawn."""
    output = tmp_path_factory.mktemp("gauge") / "model"
    fit(dataset, output, f"images={whole / '00000.arrow'}", name="gauge")
    return output


# --- fit ------------------------------------------------------------------------------------------------


def test_a_killed_fit_resumes_to_the_same_bytes(dataset, tmp_path):
    undisturbed, killed = tmp_path / "a/model", tmp_path / "b/model"
    fit(dataset, undisturbed)
    log = tmp_path / "log"
    fit(dataset, killed, status=-signal.SIGKILL, STRIPES_KILL_FIT="2", STRIPES_LOG=str(log))
    assert not killed.exists() and (killed.parent / "work/checkpoint.pt").exists()
    fit(dataset, killed, STRIPES_LOG=str(log))
    assert log.read_text().split("\n")[:-1] == [f"b {number}" for number in range(4)]  # none twice
    assert (killed / "mean.json").read_bytes() == (undisturbed / "mean.json").read_bytes()
    assert not (killed.parent / "work").exists()


def test_a_fit_out_of_time_saves_and_leaves_with_75(dataset, tmp_path):
    output = tmp_path / "fit/model"
    arguments = ["--dataset", dataset, "--output", output, "--device", "cpu", "--max-seconds", "0.001"]
    for _ in range(3):  # each makes one of four steps
        stage("fit", *arguments, settings=step("palette"), status=75)
        assert not output.exists()
    stage("fit", *arguments, settings=step("palette"))
    assert output.is_dir() and json.loads((tmp_path / "fit/model.record.json").read_text())["steps"] == 4


def test_a_foreign_checkpoint_is_refused(dataset, tmp_path):
    output = tmp_path / "fit/model"
    fit(dataset, output, status=-signal.SIGKILL, STRIPES_KILL_FIT="2")
    other = step("palette", palette={"steps": 5})
    line = one_line(fit(dataset, output, settings=other, status=2))
    assert "begun with other settings" in line and str(output.parent / "work") in line


@pytest.mark.parametrize(
    ("name", "reads", "message"),
    [
        ("gauge", (), "step 'gauge' reads what step 'images' made: give --reads images=PATH"),
        ("gauge", ("images=/nowhere/0.json",), "no such file or folder"),
        ("gauge", ("picture=x",), "step 'gauge' does not read it; known"),
        ("palette", ("images",), "expected NAME=PATH"),
        ("pallete", (), "stripes has no fit step 'pallete'; did you mean 'palette'?"),
    ],
)
def test_bad_input_of_a_fit_is_one_line(dataset, tmp_path, name, reads, message):
    assert message in one_line(fit(dataset, tmp_path / "model", *reads, name=name, status=2))


def test_a_step_is_not_told_of_the_settings_of_others(dataset, tmp_path):
    settings = step("palette", gauge={"steps": 3})
    line = one_line(fit(dataset, tmp_path / "model", settings=settings, status=2))
    assert "--settings: engine: gauge: unknown key" in line


# --- label ----------------------------------------------------------------------------------------------


def test_labels_come_from_stored_arrays_and_belong_to_the_drawn_images(
    dataset,
    manifest,
    whole,
    gauge,
    tmp_path,
):
    output = tmp_path / "labels/00000.arrow"
    label(dataset, manifest, whole / "00000.arrow", gauge, output)
    drawn, labelled = load_shard(whole / "00000.arrow"), load_shard(output)
    assert labelled["images"] == drawn["images"] and shard_identity(labelled) == shard_identity(drawn)
    assert image_folder(output, labelled).resolve() == whole.resolve()
    assert {a["labeller"] for a in labelled["annotations"]} == {"gauge"}
    store = ImageStore(whole)
    for annotation in labelled["annotations"]:
        index = annotation["image_id"] - 1_000_000
        assert annotation["bbox"] == read_array(store, "00000.zip", index, "corner").tolist()
    again = tmp_path / "again/00000.arrow"
    label(dataset, manifest, whole / "00000.arrow", gauge, again)
    first, second = labelled, load_shard(again)
    assert first["annotations"] == second["annotations"] and first["info"]["run"] == second["info"]["run"]
    label(dataset, manifest, whole / "00000.arrow", gauge, again, labels={"least": 15})
    fewer = load_shard(again)
    assert len(fewer["annotations"]) < len(labelled["annotations"]) and fewer["rejected"]
    assert fewer["info"]["run"] != labelled["info"]["run"]


def test_labels_of_all_shards_are_of_one_run(dataset, manifest, gauge, tmp_path):
    for shard in (0, 1):
        generate(dataset, manifest, tmp_path / "shards", shard, 2)
        drawn = tmp_path / f"shards/{shard:05d}.arrow"
        label(dataset, manifest, drawn, gauge, tmp_path / f"labels/{shard:05d}.json")
    loaded = load_run(sorted((tmp_path / "labels").glob("0????.json")))
    assert len(loaded) == 2 and sum(len(shard["images"]) for shard in loaded) == 14


def test_images_keep_what_the_draw_step_said_about_them(whole):
    assert all(image["asked"] == 3 for image in load_shard(whole / "00000.arrow")["images"])


def test_missing_arrays_are_one_line(dataset, manifest, whole, gauge, tmp_path):
    from gen4det.data.label_tables import write_table
    from gen4det.data.shards import archive_digest

    folder = tmp_path / "shards"
    shutil.copytree(whole, folder)
    with zipfile.ZipFile(whole / "00000.zip") as source, zipfile.ZipFile(folder / "00000.zip", "w") as copy:
        for name in source.namelist():
            if not name.startswith("arrays/"):
                copy.writestr(name, source.read(name))
    data = load_shard(whole / "00000.arrow")
    data["info"]["digest"] = archive_digest(folder / "00000.zip")
    write_table(folder / "00000.arrow", data)
    line = one_line(label(dataset, manifest, folder / "00000.arrow", gauge, tmp_path / "out.json", status=2))
    assert "no such array; draw the shard again" in line and "corner.npy" in line


def test_a_shard_of_another_manifest_is_refused(dataset, manifest, whole, gauge, tmp_path):
    shorter = tmp_path / "manifest.jsonl"
    shorter.write_text("".join(manifest.read_text().splitlines(keepends=True)[:4]))
    line = one_line(label(dataset, shorter, whole / "00000.arrow", gauge, tmp_path / "out.json", status=2))
    assert "holds images that this manifest does not ask for" in line


def test_arrays_survive_a_round_through_the_archive(whole):
    store = ImageStore(whole)
    assert read_array(store, "00000.zip", 0, "corner").dtype == np.int32
    with pytest.raises(InputError, match="no such array"):
        read_array(store, "00000.zip", 0, "latents")
    assert not [name for name in store.names() if "arrays" in name]  # no images


# --- thresholds of labellers ----------------------------------------------------------------------------


def test_each_labeller_has_a_threshold_of_its_own():
    settings = FilterSettings(min_score={"detector": 0.8, "head": 0.4})
    image = {"id": 1, "height": 10, "width": 10}

    def verdict(**more):
        label = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25}
        _, rejected = split_labels([image], [label | more], settings)
        return rejected[0]["reason"] if rejected else None

    assert verdict(score=0.5, labeller="head") is None
    assert verdict(score=0.5, labeller="detector") == "min_score"
    with pytest.raises(InputError, match="no threshold for the labels of 'hed'; did you mean 'head'"):
        verdict(score=0.5, labeller="hed")
