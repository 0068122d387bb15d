"""Tables say what was measured, over which seeds, at which scale, and what is missing."""

import csv
import io
import json
import re
import statistics

import pandas as pd
import pytest

from gen4det.core.errors import InputError
from gen4det.core.settings import parse_settings
from gen4det.evaluation.settings import METRICS
from gen4det.evaluation.study_settings import StudySettings
from gen4det.evaluation.study_table import (
    csv_columns,
    published_rows,
    read_metrics,
    spread,
    study_rows,
    to_csv,
)
from gen4det.evaluation.table_text import to_html, to_latex, to_markdown
from gen4det.stages import plot

SETTINGS = {
    "title": "LVIS, rare categories",
    "scale": "miniature",
    "arms": {"real": {"label": "real images"}, "drawn": {"label": "+ Drawn_50%"}, "late": {}},
    "metrics": ["mask_APr", "mask_AP", "box_AP"],
    "seeds": [0, 1, 2],
    "published": {
        "source": "Paper, Table 1",
        "real": {"mask_AP": 21.7},
        "drawn": {"mask_AP": 23.1, "box_AP": 24.0},
        "late": {"source": "Other paper", "mask_AP": 30.0, "baseline": {"mask_AP": 30.5}},
    },
}


def study(**changes):
    return StudySettings(**(SETTINGS | changes))


def metrics_file(value, **special):
    values = {name: value for name in METRICS} | special
    return {"box": values, "mask": values, "validation": {"dataset": "lvis"}}


def some_metrics():
    return {
        "real": {0: metrics_file(10.0), 1: metrics_file(12.0), 2: metrics_file(14.0)},
        "drawn": {0: metrics_file(11.0), 2: metrics_file(18.0, APr=None)},
        "late": {},
    }


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


# --- numbers ----------------------------------------------------------------------------------------


def test_mean_and_sample_deviation_over_seeds():
    row = study_rows(study(), some_metrics())[0]
    value = row.cells["mask_AP"].value
    assert (value.mean, value.deviation, value.count) == (12.0, statistics.stdev([10, 12, 14]), 3)
    assert value.deviation == 2.0  # ddof = 1


def test_one_seed_has_no_deviation():
    assert spread(pd.Series([5.0])).deviation is None and spread(pd.Series([], dtype=float)).mean is None
    line = parsed(to_csv(study(), study_rows(study(), {**some_metrics(), "late": {1: metrics_file(9.0)}})))[2]
    assert line["mask_AP_mean"] == "9.0000" and line["mask_AP_sd"] == "" and line["mask_AP_delta_sd"] == ""


def test_a_missing_seed_is_shown_missing():
    rows = study_rows(study(), some_metrics())
    assert [row.seeds for row in rows] == ["3/3", "2/3 (missing: 1)", "0/3 (missing: 0, 1, 2)"]
    lines = parsed(to_csv(study(), rows))
    assert [line["seeds"] for line in lines] == [row.seeds for row in rows]
    assert (lines[1]["seeds_present"], lines[1]["seeds_wanted"]) == ("2", "3")
    assert lines[2]["mask_AP_mean"] == ""
    for text in (to_markdown(study(), rows), to_latex(study(), rows)):
        assert "2/3 (missing: 1)" in text and "0/3 (missing: 0, 1, 2)" in text


def test_deltas_are_paired_over_the_seeds_that_both_arms_have():
    drawn = study_rows(study(), some_metrics())[1]
    delta = drawn.cells["mask_AP"].delta
    # Seeds 0 and 2: 11 - 10 and 18 - 14; the means over all seeds would differ by 14.5 - 12.
    assert delta.mean == 2.5 and delta.count == 2 and delta.deviation == statistics.stdev([1, 4])
    assert study_rows(study(), some_metrics())[0].cells["mask_AP"].delta.mean is None


def test_undefined_in_one_seed_is_undefined():
    cell = study_rows(study(), some_metrics())[1].cells["mask_APr"]
    assert cell.value.mean is None and cell.delta.mean is None


def test_published_deltas_are_against_the_baseline_of_their_own_paper():
    rows = study_rows(study(), some_metrics())
    assert [row.cells["mask_AP"].published for row in rows] == [21.7, 23.1, 30.0]
    assert [row.cells["mask_AP"].published_delta for row in rows] == [None, 1.4, -0.5]
    assert rows[1].cells["box_AP"].published_delta is None  # the paper prints no baseline for it
    assert [row.source for row in rows] == ["Paper, Table 1", "Paper, Table 1", "Other paper"]


def test_a_row_that_is_published_only_stands_beside_published_rows_and_nowhere_among_the_measured():
    theirs = {"label": "+ Theirs", "mask_AP": 22.0}
    settings = study(published=SETTINGS["published"] | {"theirs": theirs})
    rows = study_rows(settings, some_metrics())
    assert [row.arm for row in rows] == ["real", "drawn", "late"]
    last = published_rows(settings, rows)[-1]
    assert (last.label, last.source, last.caption) == ("+ Theirs", "Paper, Table 1", "+ Theirs")
    assert (last.cells["mask_AP"].published, last.cells["mask_AP"].published_delta) == (22.0, 0.3)
    assert last.cells["box_AP"].published is None
    *_, line = parsed(to_csv(settings, rows, {"real": {"images": 3}}))
    assert (line["arm"], line["seeds"], line["seeds_wanted"]) == ("theirs", "published only", "0")
    assert (line["mask_AP_mean"], line["mask_AP_published"], line["images"]) == ("", "22.0000", "")
    text = to_markdown(settings, rows)
    assert text.count("+ Theirs") == 1 and "+ Theirs" in text.split("Published, in brackets")[1]
    assert "22.0 (+0.3)" in text
    text = to_latex(settings, rows)
    assert text.count("+ Theirs & & -- & 22.0") == 1 and "Theirs" not in text.split("Published: Paper")[0]
    assert "Theirs" not in to_html(settings, rows)


# --- files --------------------------------------------------------------------------------------------


def test_columns_and_rows_have_a_fixed_order():
    lines = to_csv(study(), study_rows(study(), some_metrics())).splitlines()
    assert lines[0].split(",") == csv_columns(study())
    assert lines[0].startswith(
        "study,scale,dataset,detector,arm,label,seeds_present,seeds_wanted,seeds,"
        "mask_APr_mean,mask_APr_sd,mask_APr_delta,mask_APr_delta_sd,mask_APr_delta_seeds,"
        "mask_APr_delta_low,mask_APr_delta_high,mask_APr_told,"
        "mask_APr_published,mask_APr_published_delta,mask_AP_mean,"
    )
    assert lines[0].endswith(",published_source")
    assert [line["arm"] for line in parsed("\n".join(lines))] == ["real", "drawn", "late"]
    nothing = study_rows(study(), {arm: {} for arm in SETTINGS["arms"]})
    assert to_csv(study(), nothing).splitlines()[0] == lines[0]


def test_a_miniature_says_so_everywhere():
    rows = study_rows(study(), some_metrics())
    assert all(line["scale"] == "miniature" for line in parsed(to_csv(study(), rows)))
    for text in (to_markdown(study(), rows), to_latex(study(), rows)):
        assert "miniature" in text and "not comparable with published numbers" in text
    assert "miniature" not in to_markdown(study(scale="paper"), rows)


def test_each_row_says_whether_its_change_is_more_than_chance():
    def by_category(*values):
        return metrics_file(sum(values) / 4) | {
            "per_category": [{"id": k, "mask_AP": value} for k, value in enumerate(values)]
        }

    settings = study(metrics=["mask_AP"], published={})
    found = {
        "real": {seed: by_category(10, 20, 30, 40) for seed in (0, 1, 2)},
        "drawn": {seed: by_category(16, 25 + seed / 10, 35, 46) for seed in (0, 1, 2)},
        "late": {0: by_category(30, 5, 31, 41)},
    }
    rows = study_rows(settings, found)
    text = to_markdown(settings, rows)
    told = r"- \+ Drawn_50%: mask AP changes by \+5.5 against real images \(\+\d.*: more than chance"
    assert re.search(told, text) and "seeds alone" not in text
    assert "late: mask AP changes by +1.8 against real images; one seed: could be chance" in text
    assert [line["mask_AP_told"] for line in parsed(to_csv(settings, rows))] == ["", "yes", ""]
    found["drawn"][1] = by_category(0, 20, 30, 40)
    assert ": could be chance" in to_markdown(settings, study_rows(settings, found))
    settings = study(metrics=["mask_AP50"], published={})
    text = to_markdown(settings, study_rows(settings, found))
    assert "3 seeds alone: which categories were asked about is not in it)" in text, "no AP50 by category"


def test_with_one_seed_nothing_is_said_of_chance_but_that_it_is_not_known():
    settings = study(metrics=["mask_AP"], published={}, seeds=[0])
    found = {arm: {0: metrics_file(value)} for arm, value in (("real", 20), ("drawn", 30), ("late", 25))}
    text = to_markdown(settings, study_rows(settings, found))
    assert "One seed cannot say whether a change is more than chance." in text
    assert "95%" not in text and "could be chance" not in text


def test_markdown_is_aligned_for_a_terminal():
    text = to_markdown(study(), study_rows(study(), some_metrics()))
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        lines = table.splitlines()
        bars = {tuple(i for i, c in enumerate(line) if c == "|") for line in lines}
        assert len(bars) == 1
        assert max(map(len, lines)) <= 100
    assert "12.0 ± 2.0" in tables[0] and "+2.5 ± 2.1" in tables[1] and "23.1 (+1.4)" in tables[2]


def test_a_label_cannot_break_the_table():
    settings = study(arms={"real": {"label": "a|b & c_d"}}, published={})
    rows = study_rows(settings, {"real": {0: metrics_file(1.0)}})
    assert "a\\|b" in to_markdown(settings, rows)
    assert "a|b \\& c\\_d &" in to_latex(settings, rows)


def test_no_negative_zero():
    metrics = {"real": {0: metrics_file(10.0)}, "drawn": {0: metrics_file(9.99999)}, "late": {}}
    text = to_markdown(study(), study_rows(study(), metrics))
    assert "+0.0" in text and "-0.0" not in text


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ["mask_APx"]}, "no metric 'mask_APx'"),
        ({"metrics": ["APr"]}, "no metric 'APr'"),
        ({"seeds": [1, 1]}, "listed twice"),
        ({"published": {"other": {"mask_AP": 1.0}, "source": "x"}}, "no such arm"),
        ({"published": {"real": {"label": "x", "mask_AP": 1.0}, "source": "x"}}, "stands in arms.real.label"),
        ({"published": {"real": {"mask_AP": 1.0}}}, "need a source"),
        ({"published": {"source": "x", "real": {"mask_APx": 1.0}}}, "no metric"),
        ({"published": {"source": "x", "real": {"mask_AP": "high"}}}, "a number is needed"),
        ({"arms": {}}, "at least 1"),
        ({"colour": "red"}, "unknown key"),
    ],
)
def test_bad_settings_are_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_settings(StudySettings, SETTINGS | changes, source="study.yaml")
    assert "\n" not in str(caught.value)


# --- the command line -------------------------------------------------------------------------------------


def write_metrics(folder, metrics):
    paths = []
    for arm, seeds in metrics.items():
        for seed, values in seeds.items():
            path = folder / arm / f"seed{seed}" / "lvis" / "metrics.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(values))
            paths.append(str(path))
    return paths


def test_an_arm_that_was_refused_is_shown_missing_with_its_reason(tmp_path):
    reason = "all 12 labels of drawn were rejected: 12 x min_box_side"
    metrics = some_metrics() | {"drawn": dict.fromkeys(range(3), {"refused": reason})}
    read, files = read_metrics(write_metrics(tmp_path, metrics), study())
    assert read == metrics and len(files) == 6
    plain, rows = study_rows(study(), some_metrics() | {"drawn": {}}), study_rows(study(), read)
    assert rows[1].cells == plain[1].cells and rows[1].seeds == "0/3 (missing: 0, 1, 2)"
    line = parsed(to_csv(study(), rows))[1]
    assert line["seeds"] == f"0/3 (missing: 0, 1, 2): {reason}" and line["mask_AP_mean"] == ""
    assert line["seeds_present"] == "0"

    said = f"+ Drawn_50%: not trained: {reason}"
    without, text = to_markdown(study(), plain), to_markdown(study(), rows)
    assert text.replace(f"- {said}\n\n", "") == without
    assert to_html(study(), rows) == to_html(study(), plain) + f'<p class="study">{said}</p>\n'
    note = (
        "  \\par + Drawn\\_50\\%: not trained: all 12 labels of drawn were rejected: 12 x min\\_box\\_side\n"
    )
    assert to_latex(study(), rows).replace(note, "") == to_latex(study(), plain)
    assert note in to_latex(study(), rows)


def test_metrics_are_found_by_name_or_by_path(tmp_path):
    path = write_metrics(tmp_path, {"real": {1: metrics_file(3.0)}})[0]
    for argument in (path, f"real:1={path}"):
        metrics, paths = read_metrics([argument], study())
        assert metrics["real"][1]["mask"]["AP"] == 3.0 and [str(p) for p in paths] == [path]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("other:0={}", "no arm 'other'"),
        ("real:7={}", "seed 7 is not of this study"),
        ("real:0={}.gone", "No such file"),
        ("metrics.json", "expected <arm>:<seed>=<path>"),
    ],
)
def test_wrong_metrics_are_refused(tmp_path, argument, message):
    path = write_metrics(tmp_path, {"real": {0: metrics_file(3.0)}})[0]
    with pytest.raises(InputError, match=message):
        read_metrics([argument.format(path)], study())
    with pytest.raises(InputError, match="given twice"):
        read_metrics([path, f"real:0={path}"], study())


def test_rows_measured_differently_share_no_table(tmp_path):
    other = metrics_file(3.0) | {"validation": {"annotations_sha256": "another"}}
    paths = write_metrics(tmp_path, {"real": {0: metrics_file(3.0), 1: other}})
    with pytest.raises(InputError, match="measured on other validation data"):
        read_metrics(paths, study())


def test_table_stage_writes_three_equal_tables_and_a_record(tmp_path, monkeypatch):
    paths = write_metrics(tmp_path, some_metrics())
    contents = []
    for name in ("first", "second"):
        output = tmp_path / name / "lvis_rare.csv"
        text = json.dumps({"settings": SETTINGS, "code": "0"})
        monkeypatch.setattr(
            "sys.argv", ["plot", "table", "--settings", text, "--metrics", *paths, "--output", str(output)]
        )
        plot.main()
        contents.append([output.with_suffix(suffix).read_bytes() for suffix in (".csv", ".md", ".tex")])
        record = json.loads(output.with_name("lvis_rare.csv.record.json").read_text())
        assert set(record["inputs"]) == set(paths)
        assert record["seeds_missing"] == {"drawn": [1], "late": [0, 1, 2]}
    assert contents[0] == contents[1]
