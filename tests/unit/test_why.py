"""Reasons in words, from what Snakemake says in JSON."""

import json
from types import SimpleNamespace

from gen4det.core.provenance import RunRecord
from gen4det.orchestration.snakemake_metadata import differences, parameter_of, parameters
from gen4det.orchestration.why import changed, changed_modules, some


def job(tmp_path, stage="plot") -> SimpleNamespace:
    result = tmp_path / "result"
    result.touch()
    return SimpleNamespace(output=[str(result)], shellcmd=f"python -m gen4det.stages.{stage} table")


def test_swapped_values_are_two_changes(tmp_path):
    before, now = {"settings": {"a": 1, "b": {"c": 2}}}, {"settings": {"a": 2, "b": {"c": 1}}}
    reasons = list(changed(job(tmp_path), before, now))
    assert reasons == ["settings.a: 1 -> 2", "settings.b.c: 2 -> 1"]


def test_keys_that_come_and_go():
    assert [key for key, _, _ in differences({"a": {"b": 1}}, {"a": {"c": 1}})] == ["a.b", "a.c"]


def test_code_and_contents_have_no_values(tmp_path):
    before = {"code": "0", "models": {"m/unet.safetensors": "1"}, "files": {"x.py": "2"}}
    now = {"code": "3", "models": {"m/unet.safetensors": "4"}, "files": {"x.py": "5"}}
    code, model, file = changed(job(tmp_path), before, now)
    assert code.startswith("its code has changed")
    assert model == "the contents of m/unet.safetensors have changed"
    assert file == "the contents of x.py have changed"


def test_modules_that_have_changed_since_the_result(tmp_path):
    table = job(tmp_path)
    assert changed_modules(table) == []  # no record
    with RunRecord(table.output[0], settings={}, code=("gen4det.stages.plot",)):
        pass
    table.output.append(f"{table.output[0]}.record.json")
    assert changed_modules(table) == []
    record = json.loads((tmp_path / "result.record.json").read_text())
    record["code"]["closure"]["gen4det.evaluation.study_table"] = "another"
    record["code"]["closure"]["gen4det.evaluation.former"] = "gone"
    del record["code"]["closure"]["gen4det.core.errors"]
    (tmp_path / "result.record.json").write_text(json.dumps(record))
    modules = ["gen4det.core.errors", "gen4det.evaluation.former", "gen4det.evaluation.study_table"]
    assert changed_modules(table) == modules
    (reason,) = changed(table, {"code": "0"}, {"code": "1"})
    assert reason == f"its code has changed: {', '.join(modules)}"


def test_parameters_beside_the_one():
    assert parameters([repr(json.dumps({"code": "it's"})), "2"]) == {"code": "it's", "others": [2]}


def test_the_parameter_stands_in_the_record(tmp_path):
    record = tmp_path / "x.record.json"
    assert parameter_of(record) is None
    record.write_text(
        json.dumps({"command": ["plot", "table", "--settings", '{"code": "0"}', "--output", "x"]})
    )
    assert parameter_of(record) == {"code": "0"}
    record.write_text(json.dumps({"command": ["plot", "table", "--settings", "settings.json"]}))
    assert parameter_of(record) is None  # run by hand


def test_long_lists_are_cut():
    assert some("abc") == "a, b, c"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
