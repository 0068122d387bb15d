"""The studies of Gen2Det: what their rows change, and nothing else."""

from pathlib import Path

import pytest

from gen4det.core.yaml_files import read_yaml
from gen4det.data.source_settings import SubsetDataset
from gen4det.orchestration.project import load_project
from gen4det.orchestration.studies import Training

ROOT = Path(__file__).parents[2]
SCALES = ("config.yaml", "paper.yaml")


@pytest.fixture(params=SCALES)
def project(request):
    def load(*studies: str):
        values = read_yaml(ROOT / "config" / request.param) | {"studies": list(studies)}
        return load_project(values, source=request.param, root=ROOT)

    return load


def switches(row: Training, filters: dict) -> tuple[bool, bool, bool, bool, bool, bool]:
    """Columns of the published ablation: real, synthetic, sampling, image filter, detector filter, ignore."""
    chosen = filters.get(row.synthetic[0] if row.synthetic else None)
    return (
        row.real,
        bool(row.synthetic),
        row.settings.synthetic_batches is not None,
        bool(chosen and chosen.aesthetic.enabled),
        bool(chosen and chosen.agreement.enabled),
        row.settings.ignore_background,
    )


def test_the_eight_rows_of_the_ablation(project):
    loaded = project("gen2det_components")
    rows = list(loaded.studies["gen2det_components"].trainings.values())
    filters = {name: engine.filter for name, engine in loaded.engines.items()}
    y, n = True, False
    assert [switches(row, filters) for row in rows] == [
        (y, n, n, n, n, n),
        (n, y, n, n, n, n),
        (y, y, n, n, n, n),
        (y, y, y, n, n, n),
        (y, y, y, y, n, n),
        (y, y, y, y, y, n),
        (y, y, y, y, n, y),
        (y, y, y, y, y, y),
    ]


def test_rows_of_the_ablation_differ_in_nothing_else(project):
    loaded = project("gen2det_components")
    study = loaded.studies["gen2det_components"]
    rows = study.trainings.values()
    named = {"synthetic_batches", "repeat_by", "ignore_background"}
    assert len({row.settings.model_dump_json(exclude=named) for row in rows}) == 1
    for row in rows:  # the share that repeat factors are counted on goes with the sampling
        sampled = row.settings.synthetic_batches is not None
        assert (row.settings.synthetic_batches, row.settings.repeat_by) == (
            (0.2, "each") if sampled else (None, "all")
        )
    assert {loaded.engines[name].images for name in study.engines} == {"gen2det"}  # drawn once
    left = {name: loaded.engines[name].filter.model_copy() for name in study.engines}
    off = {
        "aesthetic": left["gen2det-unfiltered"].aesthetic,
        "agreement": left["gen2det-unfiltered"].agreement,
    }
    assert len({chosen.model_copy(update=off).model_dump_json() for chosen in left.values()}) == 1


def test_sweeps_change_one_setting_at_a_time(project):
    loaded = project("gen2det_sweeps")
    study = loaded.studies["gen2det_sweeps"]
    schedule, probability, amount = (panel.lines["Gen2Det"] for panel in study.table.lines)
    rows = study.trainings
    usual = rows["gen2det"].settings
    for x, arm in schedule:
        assert rows[arm].settings == usual.model_copy(update={"schedule": x})
        assert rows[arm].synthetic == ("gen2det",)
    for x, arm in probability[1:]:
        assert rows[arm].settings == usual.model_copy(update={"synthetic_batches": x})
    for x, arm in amount[1:]:
        engine = loaded.engines[rows[arm].synthetic[0]]
        drawn, used = engine.settings.generations_per_reference, engine.filter.generations_per_reference
        assert min(drawn, used or drawn) == x and rows[arm].settings == usual
    assert probability[0] == amount[0] == (0, "real")
    assert len({loaded.engines[rows[arm].synthetic[0]].images for _, arm in amount[1:]}) == 2


def test_published_numbers_stand_beside_every_row(project):
    loaded = project("gen2det_components", "gen2det_sweeps", "coco_low_data")
    for study in loaded.studies.values():
        assert all(study.table.published_value(arm, "box_AP") is not None for arm in study.table.arms)
    assert loaded.studies["gen2det_components"].table.published_delta("gen2det", "box_APr") == 4.8
    assert loaded.studies["coco_low_data"].table.published_delta("gen2det-5", "box_AP") == 3.39


def test_low_data_rows_share_two_recipes_over_nested_subsets(project):
    loaded = project("coco_low_data")
    study = loaded.studies["coco_low_data"]
    rows = study.trainings
    assert {row.recipe for row in rows.values()} == {"real", "gen2det"} and len(rows) == 16
    sizes = {}
    for name, row in rows.items():
        data = loaded.config.datasets[row.dataset]
        assert isinstance(data, SubsetDataset) and (data.of, data.seed) == ("coco", 0)
        sizes[name] = round(100 * data.share)
        assert study.table.baseline_of(name) == f"real-{sizes[name]}"
        assert name.endswith(f"-{sizes[name]}")
    assert sorted(set(sizes.values())) == [1, 2, 5, 10, 20, 30, 40, 50]
    asked = {(it.training.dataset, it.training.recipe) for it in loaded.asked()}
    assert asked == {(row.dataset, "real") for row in rows.values()}  # each subset has a detector of its own
