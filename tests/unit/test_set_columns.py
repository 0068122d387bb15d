"""What a table says of the generated images behind its rows, and the study that compares all engines."""

import csv
import io
import json
from pathlib import Path

import pytest

from gen4det.core.errors import InputError
from gen4det.core.yaml_files import read_yaml
from gen4det.evaluation.study_settings import StudySettings
from gen4det.orchestration.project import load_project
from gen4det.stages import plot

ROOT = Path(__file__).parents[2]
ENGINES = {"mosaicfusion", "gen2det", "instagen", "diffusionengine", "detdiffusion"}
SETTINGS = {
    "title": "t",
    "scale": "miniature",
    "arms": {"real": {}, "one": {}, "two": {}},
    "metrics": ["box_AP"],
    "seeds": [0, 1, 2],
    "sets": {"real": [], "one": ["d/a"], "two": ["d/a", "d/b"]},
    "laid_out": ["d/a"],
}


def write(folder: Path) -> dict[str, Path]:
    """metrics.json of three arms and three seeds, and the measures of two sets."""
    files = {}
    for arm, gain in {"real": 0.0, "one": 5.0, "two": 0.0}.items():
        for seed in (0, 1, 2):
            entries = [{"id": k, "box_AP": 20 + k + gain + 0.1 * seed * (arm != "real")} for k in range(6)]
            values = {"AP": sum(it["box_AP"] for it in entries) / 6}
            path = folder / f"{arm}-{seed}.json"
            path.write_text(json.dumps({"box": values, "mask": None, "per_category": entries}))
            files[f"{arm}:{seed}"] = path
    for name, images, seconds, found in (("a", 30, 60.0, 80.0), ("b", 10, 20.0, 40.0)):
        (folder / name).mkdir()
        measures = {"images": images, "rejected": 10.0, "seconds_per_offered": seconds}
        (folder / name / "measures.json").write_text(json.dumps({"set": measures, "devices": ["cpu"]}))
        fidelity = {"layout": {"all": {"AP": 12.0, "found": found}}}
        (folder / name / "fidelity.json").write_text(json.dumps(fidelity))
    return files


def made(folder: Path, monkeypatch, sets: list[str]) -> tuple[list[dict], str]:
    metrics = [f"{arm}={path}" for arm, path in write(folder).items()]
    call = ["plot", "table", "--settings", json.dumps(SETTINGS), "--metrics", *metrics]
    call += ["--sets", *sets, "--output", str(folder / "t.csv")]
    monkeypatch.setattr("sys.argv", call)
    plot.main()
    return list(csv.DictReader(io.StringIO((folder / "t.csv").read_text()))), (folder / "t.md").read_text()


def test_each_row_says_what_its_images_are_and_cost(tmp_path, monkeypatch):
    sets = [f"d/{name}={tmp_path / name / kind}.json" for name in "ab" for kind in ("measures", "fidelity")]
    (real, one, two), text = made(tmp_path, monkeypatch, sets)
    assert real["images"] == "" and (one["images"], two["images"]) == ("30", "40")
    assert float(one["found"]) == 80 and float(two["found"]) == (30 * 80 + 10 * 40) / 40
    assert float(one["layout_AP"]) == 12 and two["layout_AP"] == "", "one of both has no layout"
    assert float(two["seconds_per_offered"]) == (30 * 60 + 10 * 20) / 40
    # Half an hour for five points that are more than chance; the other gain is not.
    assert one["box_AP_told"] == "yes" and float(one["hours_per_point"]) == pytest.approx(0.5 / 5.1, rel=1e-3)
    assert two["box_AP_told"] == "no" and two["hours_per_point"] == ""
    assert "| one " in text.partition("Generated images behind each row")[2]


def test_measures_that_are_not_there_are_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="d/b: no measures of this set"):
        made(tmp_path, monkeypatch, [f"d/a={tmp_path}/a/measures.json"])


# --- the study ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["config", "paper"])
def test_all_engines_offer_equally_many_images_to_equally_long_trainings(scale):
    path = ROOT / f"config/{scale}.yaml"
    project = load_project(read_yaml(path) | {"studies": ["engines"]}, source=path.name, root=ROOT)
    study = project.studies["engines"]
    assert study.seeds == (0, 1, 2) and project.config.seeds == (0,)
    amounts: dict[str, set[int]] = {"x1": set(), "x4": set()}
    seen = set()
    for name, row in study.trainings.items():
        settings = row.settings
        assert (row.dataset, row.detector) == ("lvis", "mask-rcnn") and row.real
        assert settings.iterations == study.trainings["real"].settings.iterations
        assert settings.schedule == study.trainings["real"].settings.schedule
        if row.synthetic:
            assert (settings.synthetic_batches, settings.repeat_by) == (0.2, "each"), name
            offered = [project.engines[it].filter.max_images for it in row.synthetic]
            amounts[name[-2:]].add(sum(offered))
            assert len(set(offered)) == 1, "equal shares"
            seen |= {project.engines[it].settings.method for it in row.synthetic}
    assert seen == ENGINES | ({"oracle"} if scale == "config" else set())
    (once,), (four,) = amounts["x1"], amounts["x4"]
    assert four == 4 * once
    assert {project.engines[it].images for it in study.engines} == {
        it for it in study.engines if it.endswith("-x4")
    }, "drawn once for all amounts"


def test_the_plan_says_which_boxes_were_asked_for():
    path = ROOT / "config/config.yaml"
    project = load_project(read_yaml(path) | {"studies": ["engines"]}, source=path.name, root=ROOT)
    laid_out = {it.settings.method for it in project.engines.values() if it.has_layout}
    assert laid_out == {"mosaicfusion", "gen2det", "detdiffusion", "oracle"}


def test_a_set_knows_all_that_was_made_for_it():
    from types import SimpleNamespace

    from gen4det.orchestration.jobs import Jobs

    path = ROOT / "config/config.yaml"
    jobs = Jobs(load_project(read_yaml(path) | {"studies": ["engines"]}, source=path.name, root=ROOT))

    def kinds(engine: str) -> set[str]:
        return {
            it.split("=")[0] for it in jobs.set_made_by_kind(SimpleNamespace(dataset="lvis", engine=engine))
        }

    assert kinds("mosaicfusion-x1") == set()
    assert kinds("gen2det-x1") == {"rate", "calibrate", "detect"}
    assert kinds("instagen-x1-fifth") == {"fit", "label", "detect"}
    assert kinds("diffusionengine-x4") == {"detector"}
    assert kinds("detdiffusion-x1") == {"fit", "detect_real"}


def test_seeds_of_a_study_are_its_own():
    with pytest.raises(ValueError, match="a seed is listed twice"):
        StudySettings(**SETTINGS | {"seeds": [1, 1]})
