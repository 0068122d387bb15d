"""The promises of the readme, each with the tests that hold it, and one that the source itself must keep."""

import ast
from pathlib import Path

import pytest

from gen4det.core.provenance import PACKAGE_ROOT

TESTS = Path(__file__).parents[1]
PROMISES = {
    "Only what changed runs again": [
        "workflow/test_promise_only_what_changed_runs_again.py::test_editing_the_table_makes_the_table",
        "workflow/test_promise_only_what_changed_runs_again.py::test_touching_all_sources_and_results_reruns_nothing",
        "workflow/test_promise_only_what_changed_runs_again.py::test_editing_mosaicfusion_draws_mosaicfusion_again",
        "workflow/test_promise_only_what_changed_runs_again.py::test_a_change_and_what_runs_again",
        "workflow/test_make_why.py::test_each_change_is_named_where_it_strikes_and_what_follows_from_it",
        "workflow/test_workflow.py::test_a_second_run_finds_nothing_to_do",
    ],
    "Same seed, same data": [
        "unit/test_provenance.py::test_seeds_are_fixed_for_ever",
        "unit/test_shards.py::test_three_shards_give_the_same_data_as_one",
        "unit/test_shards.py::test_killed_and_resumed_gives_the_same_files",
        "unit/test_training.py::test_the_same_seed_gives_the_same_bytes_and_another_seed_others",
    ],
    "Nothing lost": [
        "workflow/test_promise_nothing_lost.py::"
        "test_killed_generation_resumes_inside_the_shard_with_the_same_bytes",
        "workflow/test_promise_nothing_lost.py::test_terminated_training_saves_and_resumes_with_the_same_weights",
        "unit/test_training.py::test_kill_9_and_resume_gives_the_weights_of_an_uninterrupted_training",
        "unit/test_images.py::test_full_disk_leaves_the_earlier_shard_alone",
        "slurm/test_disturbances.py::test_a_cancelled_job_is_noticed_and_goes_on",
        "slurm/test_disturbances.py::"
        "test_jobs_of_a_killed_driver_are_ended_before_the_next_call_submits_them",
    ],
    "Every number has a pedigree": [
        "workflow/test_workflow.py::test_every_number_has_a_pedigree",
        "workflow/test_workflow.py::test_from_a_cell_of_the_table_back_to_the_images",
    ],
    "Bad input is refused in one line": [
        "workflow/test_promise_bad_input_is_refused.py::test_unknown_key_is_one_line",
        "workflow/test_promise_bad_input_is_refused.py::test_missing_photographs_are_named",
        "workflow/test_promise_nothing_lost.py::"
        "test_a_second_run_in_the_same_checkout_is_refused_and_explained",
        "unit/test_config.py::test_bad_input_is_refused_unknown_reference",
    ],
    "No pickle from strangers": [
        "unit/test_promises.py::test_no_pickle_from_strangers",
        "unit/test_detection_detectors.py::test_backbones_of_another_size_and_pickles_with_code_are_refused",
    ],
}


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_has_its_tests(promise):
    assert promise in (TESTS.parent / "README.md").read_text()
    for name in PROMISES[promise]:
        file, function = name.split("::")
        tree = ast.parse((TESTS / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_no_pickle_from_strangers():
    """torch.load reads tensors only, archives are never unpacked wholesale, pickle never reads a file."""
    for path in (PACKAGE_ROOT / "gen4det").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            call, options = (
                ast.unparse(node.func),
                {word.arg: ast.unparse(word.value) for word in node.keywords},
            )
            if call == "torch.load":
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
            assert not call.endswith(".extractall"), f"{path}:{node.lineno}"
            assert call not in ("pickle.load", "yaml.unsafe_load", "yaml.full_load"), f"{path}:{node.lineno}"
            if call in ("numpy.load", "np.load"):
                assert options.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
