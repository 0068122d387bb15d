"""The table of licences, the registry and what data cards quote say the same."""

from pathlib import Path

from gen4det.core.yaml_files import read_yaml
from gen4det.data.registry import load_registry
from gen4det.engines.base import known_methods
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]
LICENCES = read_yaml(ROOT / "resources/licences.yaml")
TABLE = (ROOT / "docs/licences.md").read_text()


def test_the_docs_list_every_engine_and_model_as_the_files_do():
    for name, engine in LICENCES["engines"].items():
        if name != "oracle":  # of the miniature alone
            assert f"| {name} | {engine['code']} |" in TABLE
    registry = load_registry(ROOT / "resources/data_registry.yaml")
    known = registry.models | registry.weights
    for name, model in known.items():
        assert f"| {name} | {model.licence} |" in TABLE or f"| {name} |" not in TABLE, name
    foundation = read_yaml(ROOT / "config/paper.yaml")["foundation"].values()
    for name in (Path(model["path"]).name for model in foundation):
        assert f"| {name} | {known[name].licence} |" in TABLE, name


def test_every_engine_here_has_its_terms():
    assert set(known_methods()) <= LICENCES["engines"].keys()


def test_a_card_quotes_models_of_the_registry_and_of_the_repository():
    class Words:
        dataset, engine, layout = "lvis", "mosaicfusion", "coco-merged"

    for scale, licence, data in (
        ("config", "Apache-2.0 (part of Gen4Det)", "rendered by Gen4Det"),
        ("paper", "CreativeML OpenRAIL-M", "Flickr terms of use"),
    ):
        values = read_yaml(ROOT / f"config/{scale}.yaml") | {"studies": ["lvis_rare"], "arms": {}}
        values.pop("fidelity", None)
        job = Jobs(load_project(values, source=scale, root=ROOT)).export(Words)
        assert licence in job and data in job and "2309.13042" in job
