"""Categories one by one: average precision of each arm, and its gain against the number of real images."""

import csv
import io

from gen4det.core.settings import parse_settings
from gen4det.evaluation.category_gains import category_rows, gain_figure, to_csv
from gen4det.evaluation.plotting import save_figure
from gen4det.evaluation.study_settings import StudySettings

SETTINGS = parse_settings(
    StudySettings,
    {
        "title": "Own",
        "scale": "own",
        "arms": {"real": {}, "ours": {"label": "+ ours"}},
        "metrics": ["box_AP"],
        "seeds": [0, 1],
    },
    source="",
)


def measured(cup: float | None, owl: float | None, masks: bool = False) -> dict:
    categories = [
        {"id": 1, "name": "cup", "images_train": 40, "images_val": 5, "instances_val": 6, "box_AP": cup},
        {
            "id": 2,
            "name": "owl, $mall",
            "images_train": 3,
            "images_val": 2,
            "instances_val": 2,
            "box_AP": owl,
        },
    ]
    for entry in categories:
        entry["mask_AP"] = entry["box_AP"] and entry["box_AP"] / 2
    return {"box": {"AP": 1.0}, "mask": {"AP": 1.0} if masks else None, "per_category": categories}


METRICS = {
    "real": {0: measured(50.0, 10.0), 1: measured(52.0, None)},
    "ours": {0: measured(49.0, 30.0), 1: measured(53.0, 20.0)},
}


def test_gains_are_means_over_the_seeds_that_both_have_rarest_first():
    rows = category_rows(SETTINGS, METRICS)
    assert [row["name"] for row in rows] == ["owl, $mall", "cup"]
    owl, cup = rows
    assert (cup["kind"], cup["real"], cup["ours"], cup["ours gain"]) == ("box", 51.0, 51.0, 0.0)
    assert (owl["real"], owl["ours"], owl["ours gain"]) == (10.0, 25.0, 20.0)


def test_masks_are_shown_where_they_were_measured_and_refused_arms_are_empty():
    metrics = {"real": {0: measured(50.0, 10.0, masks=True)}, "ours": {0: {"refused": "nothing was kept"}}}
    cup = category_rows(SETTINGS, metrics)[1]
    assert (cup["kind"], cup["real"], cup["ours"], cup["ours gain"]) == ("mask", 25.0, None, None)


def test_the_table_is_csv_and_the_figure_holds_a_point_for_each_category(tmp_path):
    rows = category_rows(SETTINGS, METRICS)
    (owl, cup) = csv.DictReader(io.StringIO(to_csv(rows)))
    assert owl["name"] == "owl, $mall" and owl["ours gain"] == "20.0000" and cup["images_train"] == "40"
    figure = gain_figure(SETTINGS, rows)
    (points,) = [line for line in figure.axes[0].lines if line.get_label() == "+ ours"]
    assert points.get_xydata().tolist() == [[3, 20], [40, 0]]
    assert [path.suffix for path in save_figure(figure, tmp_path / "gains.pdf")] == [".pdf", ".png"]


def test_nothing_measured_gives_an_empty_table_and_figure(tmp_path):
    nothing = {"real": {0: {"refused": "x"}}, "ours": {}}
    assert category_rows(SETTINGS, nothing) == [] and to_csv([]).count("\n") == 1
    save_figure(gain_figure(SETTINGS, []), tmp_path / "gains.pdf")


def test_of_more_arms_than_colours_each_has_a_panel_of_its_own(tmp_path):
    arms = {"real": {}} | {f"ours{number}": {"label": f"+ ours {number}"} for number in range(9)}
    values = {"title": "Own", "scale": "own", "arms": arms, "metrics": ["box_AP"], "seeds": [0, 1]}
    settings = parse_settings(StudySettings, values, source="")
    metrics = {"real": METRICS["real"]} | {f"ours{number}": METRICS["ours"] for number in range(9)}
    figure = gain_figure(settings, category_rows(settings, metrics))
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in drawn] == [f"+ ours {number}" for number in range(9)]
    for axes in drawn:
        (points,) = [line for line in axes.lines if line.get_label().startswith("+")]
        assert points.get_xydata().tolist() == [[3, 20], [40, 0]]
    save_figure(figure, tmp_path / "gains.png", dpi=50)
