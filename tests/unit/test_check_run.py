"""A run is checked against seeds of a reference: one-sided, corrected, silent about what nobody can tell."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from checkouts import ROOT
from finished_study import DETECTOR, Results, call, metrics_of
from gen4det.core.errors import InputError
from gen4det.evaluation.run_check import Row, check_run, holm, one_sided
from gen4det.stages import check_run as stage
from patience import patience

SPREAD = (-1.0, 0.0, 1.0, 0.5, -0.5)
"""Of seeds around their mean."""


def results(folder: Path, arms: dict[str, list[float]], *, draws: bool = False, **more) -> Path:
    """A folder of results: of each arm a value for each seed."""
    made = Results(folder, **more)
    sets = [made.draw("mosaicfusion")] if draws else []
    for arm, values in arms.items():
        for seed, value in enumerate(values):
            made.train(arm, seed, metrics_of(value), *sets)
    return folder


def around(value: float, seeds: int = 5) -> list[float]:
    return [value + difference for difference in SPREAD[:seeds]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    return results(
        tmp_path_factory.mktemp("reference") / "results", {"real": around(20.0), "drawn": around(25.0)}
    )


@pytest.fixture
def check(capsys):
    """Run the program: its exit status and what it says."""

    def called(run: Path, reference: Path) -> tuple[int, str]:
        capsys.readouterr()
        try:
            call(stage, {}, "--run", run, "--reference", reference)
            status = 0
        except InputError as error:
            return 2, f"{capsys.readouterr().out}{error}"
        except SystemExit as left:
            status = left.code
        return status, capsys.readouterr().out

    return called


# --- constructed runs -----------------------------------------------------------------------------------


def test_an_equal_run_is_within_and_a_far_worse_one_is_not(check, reference, tmp_path):
    equal = results(tmp_path / "equal", {"real": [20.3], "drawn": [24.8, 25.4]})
    status, said = check(equal, reference)
    assert status == 0 and "Nothing is worse" in said and "WORSE" not in said
    worse = results(tmp_path / "worse", {"real": [20.3], "drawn": [5.0, 5.4]})
    status, said = check(worse, reference)
    assert status == 1 and "WORSE than the reference" in said
    verdict = said.partition("WORSE than the reference")[2]
    assert "toy/mask-rcnn/drawn" in verdict and "toy/mask-rcnn/real" not in verdict


def test_a_slightly_worse_run_is_within_the_spread_and_a_better_one_is_never_called_worse(
    reference, tmp_path
):
    for name, value in (("slightly", 23.6), ("better", 90.0)):
        found = check_run(results(tmp_path / name, {"drawn": [value]}), reference)
        assert found.comparisons and not found.worse(0.05)
    assert min(found.corrected) > 0.9


def test_missing_rows_are_named_on_either_side(reference, tmp_path):
    found = check_run(results(tmp_path / "run", {"real": [20.0], "other": [1.0]}), reference)
    assert "toy/mask-rcnn/other on toy: not compared: the reference has no such row" in found.notes
    assert "toy/mask-rcnn/drawn on toy: not compared: the run has no such row" in found.notes
    assert {it.row.arm for it in found.comparisons} == {"real"}


def test_one_seed_of_a_reference_cannot_tell(check, tmp_path):
    one = results(tmp_path / "one", {"real": [20.0]})
    status, said = check(results(tmp_path / "run", {"real": [1.0]}), one)
    assert (
        status == 2
        and "cannot tell: the reference has one seed" in said
        and "nothing could be compared" in said
    )


def test_equal_seeds_of_a_reference_cannot_tell(tmp_path):
    same = results(tmp_path / "same", {"real": [20.0, 20.0, 20.0]})
    found = check_run(results(tmp_path / "run", {"real": [1.0]}), same)
    assert not found.comparisons and any(
        "all seeds of the reference give the same" in it for it in found.notes
    )


def test_other_settings_and_data_are_not_compared_and_other_code_is_but_is_said(reference, tmp_path):
    longer = results(tmp_path / "longer", {"real": [5.0]}, detector=DETECTOR | {"iterations": 7})
    found = check_run(longer, reference)
    assert not found.comparisons
    assert any("train.detector.iterations is 7, in the reference 6" in it for it in found.notes)

    run = results(tmp_path / "run", {"real": [20.0]})
    record = next(run.rglob("weights.safetensors.record.json"))
    facts = json.loads(record.read_text())
    facts["code"]["hash"] = "0000"
    record.write_text(json.dumps(facts))
    found = check_run(run, reference)
    assert found.comparisons and any("compared, though the code differs: train" in it for it in found.notes)
    record.unlink()
    assert any("no record lies beside the weights of the run" in it for it in check_run(run, reference).notes)

    other = results(tmp_path / "validation", {"real": [20.0]})
    metrics = next(other.rglob("metrics.json"))
    values = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(values | {"validation": {"dataset": "toy", "protocol": "coco"}}))
    assert any("validation data is" in it for it in check_run(other, reference).notes)


def test_settings_of_the_synthetic_set_count_too_wherever_the_folder_lies(tmp_path):
    reference = results(tmp_path / "reference", {"drawn": around(25.0)}, draws=True)
    moved = shutil.move(results(tmp_path / "run", {"drawn": [25.0]}, draws=True), tmp_path / "elsewhere")
    assert check_run(moved, reference).comparisons
    record = next(moved.rglob("set.json.record.json"))
    record.write_text(record.read_text().replace('"min_box_side": 0.0', '"min_box_side": 9.0'))
    notes = check_run(moved, reference).notes
    assert any(
        "toy/mosaicfusion: filter.filter.min_box_side is 9.0, in the reference 0.0" in it for it in notes
    )


def test_refused_trainings_and_bad_folders_are_said_in_a_line(check, reference, tmp_path):
    made = Results(tmp_path / "run")
    made.train("real", 0, {"refused": "all labels were rejected"})
    status, said = check(tmp_path / "run", reference)
    assert status == 2 and "seed 0 of the run: not trained: all labels were rejected" in said
    with pytest.raises(InputError, match="is the reference itself"):
        check_run(reference, reference)
    with pytest.raises(InputError, match="no results of detectors"):
        check_run(tmp_path / "nothing", reference)
    with pytest.raises(InputError, match="no metric 'box_AX'"):
        call(stage, {"metrics": ["box_AX"]}, "--run", tmp_path, "--reference", reference)


def test_a_seed_that_is_equal_is_called_so(reference, tmp_path):
    found = check_run(results(tmp_path / "run", {"real": around(20.0, 2)}), reference)
    assert "toy/mask-rcnn/real on toy: seed 0, 1: equal to the reference to the last digit" in found.notes


def test_make_check_run_passes_folders_and_status_on(reference, tmp_path):
    worse = results(tmp_path / "worse", {"drawn": [5.0, 5.4]})
    command = ["make", "--assume-old=setup", "check-run", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(
        [*command, f"RUN={worse}", f"REFERENCE={reference}"],
        cwd=ROOT, capture_output=True, text=True, timeout=patience(120),
    )  # fmt: skip
    assert done.returncode == 2 and "WORSE than the reference" in done.stdout and "Error 1" in done.stderr
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience(120))
    assert done.returncode == 2 and "make check-run RUN=folder" in done.stdout


# --- the statistics ------------------------------------------------------------------------------------

ROW = Row("toy", "mask-rcnn", "real", "toy")


def test_the_comparison_is_the_prediction_interval_of_students_distribution():
    reference, run = [20.0, 22.0, 21.0, 24.0], [18.0, 19.0]
    made = one_sided(ROW, "box_AP", run, reference)
    width = np.std(reference, ddof=1) * np.sqrt(1 / 4 + 1 / 2)
    assert made.p == pytest.approx(stats.t(df=3).cdf((18.5 - 21.75) / width))
    at_limit = one_sided(ROW, "box_AP", [made.limit(0.05)] * 2, reference)
    assert at_limit.p == pytest.approx(0.05)


def test_holm_is_the_closed_test_of_bonferroni():
    """By definition: a hypothesis falls if every set of hypotheses with it falls, each by Bonferroni."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        values = list(rng.random(5) ** 3)
        for place, corrected in enumerate(holm(values)):
            subsets = (
                subset
                for size in range(1, 6)
                for subset in itertools.combinations(range(5), size)
                if place in subset
            )
            closed = max(min(1.0, len(it) * min(values[k] for k in it)) for it in subsets)
            assert corrected == pytest.approx(closed)
    assert holm([]) == []


def test_runs_like_the_reference_are_seldom_called_worse():
    """Over 1,000 drawn experiments of six comparisons each, with nothing wrong: at most one in twenty."""
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(1000):
        values = [one_sided(ROW, "box_AP", rng.normal(30, 2, 1), rng.normal(30, 2, 3)).p for _ in range(6)]
        called += min(holm(values)) < 0.05
    assert 0.03 < called / 1000 < 0.065
