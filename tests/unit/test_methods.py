"""The methods paragraph says what the records say, and its bibliography has what it cites, no more."""

import importlib.metadata
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_study_page import SETTINGS, TABLE, rows, study

from finished_study import DETECTOR, Results, metrics_of, page_of
from gen4det.core.yaml_files import read_yaml
from gen4det.evaluation.bibliography import in_a_line, to_bibtex
from gen4det.evaluation.methods import cited_keys
from gen4det.evaluation.page_settings import PageSettings, Reference
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.page_jobs import REFERENCES, PageJobs
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]


def texts(page: Path) -> tuple[str, str]:
    return page.with_name("methods.md").read_text(), page.with_name("references.bib").read_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[str, str]:
    return texts(study(tmp_path_factory.mktemp("methods") / "results", seeds=3, min_box_side=4))


def entries(bibliography: str) -> dict[str, dict[str, str]]:
    """Entries and their fields, by a reader of its own that knows braces."""
    found = {}
    for entry in re.split(r"^@\w+\{", bibliography, flags=re.MULTILINE)[1:]:
        key, _, rest = entry.partition(",")
        assert entry.count("{") + 1 == entry.count("}"), "every brace is closed, that of the entry too"
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", rest, flags=re.MULTILINE))
    return found


def test_the_paragraph_says_what_the_records_say(written):
    methods, _ = written
    torch = importlib.metadata.version("torch")
    for told in (
        "small rendered world", "was trained on the data toy (2 images) for 12 iterations of 8 images",
        "config/detectors/toy.py", "validation images of toy (2) after the protocol of LVIS [@lvis]",
        '"+ Toy engine" trains on the real images and the set toy/mosaicfusion.', "seeds 0, 1 and 2",
        "made by MosaicFusion [@mosaicfusion] with resources/miniature/stable-diffusion (diffusion)",
        "it offers 3 images with 5 drawn labels", "region_height 64 instead of 384",
        "on the CPU under Python 3.", f"PyTorch {torch} [@pytorch]", "Student's distribution",
    ):  # fmt: skip
        assert told in methods, told
    assert "trainings" not in methods.partition("Trainings ran")[0], "all are done"


def test_the_bibliography_has_what_is_cited_and_nothing_else(written):
    methods, bibliography = written
    found = entries(bibliography)
    assert set(found) == set(cited_keys([methods])) == {"lvis", "mosaicfusion", "pytorch"}
    assert found["mosaicfusion"] == {
        "title": "{MosaicFusion:} Data \\& Augmenters", "author": "Jiahao Xie and Wei Li and others",
        "journal": "IJCV", "year": "2024", "eprint": "2309.13042", "archiveprefix": "arXiv",
    }  # fmt: skip


def test_missing_trainings_and_other_versions_are_said(tmp_path):
    results, metrics, sets = rows(tmp_path / "results", seeds=2)
    record = next((tmp_path / "results").rglob("drawn/seed1/weights.safetensors.record.json"))
    facts = json.loads(record.read_text())
    facts["packages"]["torch"], facts["iterations"], facts["device"] = "1.0", 24, "Some GPU"
    record.write_text(json.dumps(facts))
    methods, _ = texts(page_of(results, SETTINGS, metrics, sets))
    assert "Of 6 trainings 4 are done." in methods and "for 12 to 24 iterations" in methods
    assert re.search(r"on the CPU and Some GPU under .* PyTorch \S+ and 1\.0 ", methods)


def test_what_a_row_trains_otherwise_is_said(tmp_path):
    results = Results(tmp_path / "results")
    made = results.draw("mosaicfusion")
    metrics = [f"real:0={results.train('real', 0, metrics_of(20.0))}"]
    results.detector = DETECTOR | {"schedule": 3.0}
    metrics += [f"drawn:0={results.train('drawn', 0, metrics_of(21.0), made)}"]
    settings = SETTINGS | {"table": TABLE | {"seeds": [0]}}
    methods, _ = texts(page_of(results, settings, metrics, {"toy/mosaicfusion": made}))
    assert (
        '"+ Toy engine" trains on the real images and the set toy/mosaicfusion, with schedule 3.0.' in methods
    )
    assert "with one seed, 0" in methods and "One seed has no spread" in methods


def test_sets_made_alike_are_told_of_together_with_values_in_their_order(tmp_path):
    results = Results(tmp_path / "results")
    names = {"toy/mosaicfusion": "real", "toy/mosaicfusion-more": "drawn"}
    sets = {name: results.draw(name.partition("/")[2], max_images=limit)
            for name, limit in zip(names, (2, 3), strict=True)}  # fmt: skip
    metrics = [f"{arm}:0={results.train(arm, 0, metrics_of(20.0))}" for arm in ("real", "drawn")]
    one = SETTINGS["sets"]["toy/mosaicfusion"]
    changed = [{"region_height": [384, 64], "filter.max_images": [None, limit]} for limit in (2, 3)]
    settings = SETTINGS | {
        "table": TABLE | {"seeds": [0], "sets": {"drawn": [*names]}},
        "sets": {name: one | {"changed": it} for name, it in zip(names, changed, strict=True)},
    }
    methods, _ = texts(page_of(results, settings, metrics, sets))
    (told,) = re.findall(r"The sets? toy/[^\n]*", methods)
    assert told.startswith("The sets toy/mosaicfusion and toy/mosaicfusion-more were made by MosaicFusion")
    assert "they offer 2 and 3 images with" in told, told
    assert "are region_height 64 instead of 384 and filter.max_images 2 and 3 instead of null" in told, told


# --- the references ------------------------------------------------------------------------------------


def test_references_agree_with_what_is_said_elsewhere():
    known = read_yaml(ROOT / REFERENCES)
    references = {key: Reference(**values) for key, values in known["references"].items()}
    cited = {key for kind in known["cited"].values() for keys in kind.values() for key in keys}
    assert cited == set(references), "each is cited for something, and what is cited is there"
    licences = read_yaml(ROOT / "resources/licences.yaml")["engines"]
    engines = read_yaml(ROOT / "resources/engines.yaml")
    for method, keys in known["cited"]["method"].items():
        it, paper = references[keys[0]], licences[method]["paper"]
        assert it.arxiv == engines[method]["arxiv"] and f"arXiv:{it.arxiv}" in paper
        assert paper.startswith(it.authors[0].rpartition(" ")[2]) and str(it.year) in paper
        assert it.title.replace(": ", " - ") in paper
    for file in read_yaml(ROOT / "resources/data_registry.yaml")["files"].values():
        same = [it for it in references.values() if it.title.replace(": ", " - ") in file["citation"]]
        assert len(same) == 1 and str(same[0].year) in file["citation"], file["citation"]
    numbers = [it.arxiv for it in references.values() if it.arxiv]
    assert len(set(numbers)) == len(numbers) and all(
        re.fullmatch(r"\d{4}\.\d{5}|1[0-4]\d\d\.\d{4}", it) for it in numbers
    )
    assert entries(to_bibtex(references, references)).keys() == references.keys()


def test_a_line_names_authors_as_papers_do():
    one = Reference(title="T", authors=["Ann Lee"], year=2020)
    assert in_a_line(one) == "Lee. T. 2020."
    assert (
        in_a_line(one.model_copy(update={"authors": ("Ann Lee", "Bo Su"), "booktitle": "X"}))
        == "Lee and Su. T. X 2020."
    )
    assert in_a_line(one.model_copy(update={"authors": ("Ann Lee", "others"), "arxiv": "2001.00001"})) == (
        "Lee et al. T. 2020. arXiv 2001.00001."
    )


@pytest.mark.parametrize(
    ("scale", "study_name", "expected"),
    [
        ("config", "lvis_rare", {"mask-rcnn"}),
        ("paper", "lvis_rare", {"mask-rcnn", "lvis", "coco"}),
        ("paper", "coco_scaling", {"dino", "faster-rcnn", "retinanet", "latent-diffusion", "coco"}),
        ("paper", "voc_de", {"faster-rcnn", "dino", "latent-diffusion", "voc", "coco"}),
    ],
)
def test_each_row_cites_its_detector_and_its_data(scale, study_name, expected):
    values = read_yaml(ROOT / f"config/{scale}.yaml") | {"studies": [study_name], "arms": {}}
    pages = PageJobs(Jobs(load_project(values, source=scale, root=ROOT)))
    settings = PageSettings.model_validate(
        json.loads(pages.settings(SimpleNamespace(study=study_name)))["settings"]
    )
    cited = {key for arm in settings.arms.values() for key in arm.cites}
    assert cited == expected <= set(settings.references)
