"""Figures and galleries: equal inputs give equal files, and what they show is chosen by seed alone."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from filtered import write_filtered
from gen4det.core.errors import InputError
from gen4det.data.images import ShardWriter, encode_image
from gen4det.data.label_tables import write_table
from gen4det.data.masks import mask_to_rle
from gen4det.data.shards import archive_digest
from gen4det.evaluation.figures import study_figure
from gen4det.evaluation.gallery import (
    choose_kept,
    choose_rejected,
    gallery_page,
    read_shards,
    read_synthetic,
    reason_counts,
)
from gen4det.evaluation.pictures import draw_instances, show_image
from gen4det.evaluation.plotting import save_figure, style
from gen4det.evaluation.settings import METRICS
from gen4det.evaluation.study_settings import GallerySettings, StudySettings
from gen4det.stages import plot

STUDY = {
    "title": "LVIS, rare categories",
    "scale": "miniature",
    "arms": {"real": {"label": "real images"}, "drawn": {"label": "+ drawn"}},
    "metrics": ["mask_APr", "mask_AP", "box_AP"],
    "seeds": [0, 1, 2],
    "published": {"source": "Paper, Table 1", "real": {"mask_AP": 21.7}, "drawn": {"mask_AP": 23.1}},
}


def metrics_file(value):
    values = {name: value for name in METRICS}
    return {"box": values, "mask": values, "validation": {}}


METRICS_OF_ARMS = {
    "real": {seed: metrics_file(10.0 + seed) for seed in range(3)},
    "drawn": {0: metrics_file(12.0), 2: metrics_file(16.0)},
}


def words(figure):
    """All texts of a figure, without line breaks."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


# --- lines ------------------------------------------------------------------------------------------------

SWEEP = STUDY | {
    "arms": {arm: {} for arm in ("real", "p1", "p2")},
    "metrics": ["mask_AP", "box_AP"],
    "lines": [{"x": "probability", "lines": {"drawn": [[0.2, "p2"], [0, "real"], [0.1, "p1"]]}}],
    "published": {"source": "Paper, Table 2", "real": {"mask_AP": 21.0}, "p2": {"mask_AP": 23.0}},
}
METRICS_OF_SWEEP = {
    "real": {seed: metrics_file(10.0 + seed) for seed in range(3)},
    "p1": {},
    "p2": {0: metrics_file(12.0), 1: metrics_file(15.0)},
}


def test_lines_go_through_means_in_the_order_of_the_setting():
    figure = study_figure(StudySettings(**SWEEP), METRICS_OF_SWEEP)
    mask, box, published_mask, published_box = figure.axes
    line = next(line for line in mask.lines if line.get_linestyle() == "-")
    assert list(line.get_xdata()) == [0, 0.1, 0.2]
    np.testing.assert_array_equal(line.get_ydata(), [11.0, np.nan, 13.5])
    seeds = [float(y) for line in mask.lines if line.get_linestyle() == "None" for y in line.get_ydata()]
    assert sorted(seeds) == [10.0, 11.0, 12.0, 12.0, 15.0]
    (dashed,) = published_mask.lines
    assert dashed.get_linestyle() == "--" and list(dashed.get_xdata()) == [0, 0.2]
    assert list(dashed.get_ydata()) == [21.0, 23.0] and not published_box.lines
    text = words(figure)
    assert "missing: p1 (seed 0, 1, 2); p2 (seed 2)" in text and "probability" in text
    assert "not comparable" in text


def test_lines_without_published_numbers_need_no_second_row():
    figure = study_figure(StudySettings(**SWEEP | {"published": {}}), METRICS_OF_SWEEP)
    assert len(figure.axes) == 2 and "published AP" not in words(figure)


def test_words_below_neighbouring_panels_keep_apart_and_inside_the_page():
    panel = {**SWEEP["lines"][0], "x": "images, as multiples of the scarce real ones"}
    settings = StudySettings(**SWEEP | {"metrics": ["mask_AP", "box_AP", "box_AP50"], "lines": [panel]})
    with style():
        figure = study_figure(settings, METRICS_OF_SWEEP)
        figure.draw_without_rendering()
    places = [axes.xaxis.label.get_window_extent() for axes in figure.axes if axes.get_xlabel()]
    assert len(places) == 3 and places[-1].x1 <= figure.bbox.x1
    assert all(left.x1 < right.x0 for left, right in zip(places, places[1:], strict=False))


# --- the figure of a study --------------------------------------------------------------------------------


def test_every_seed_is_a_point_and_papers_have_their_own_axes():
    figure = study_figure(StudySettings(**STUDY), METRICS_OF_ARMS)
    mask, box, published_mask, published_box = figure.axes
    points = [line for line in mask.lines if line.get_marker() != "None"]
    assert sorted(float(line.get_ydata()[0]) for line in points) == sorted(2 * [10.0, 11.0, 12.0, 12.0, 16.0])
    assert len({float(line.get_xdata()[0]) for line in points}) == len(points)
    hollow = [line for line in published_mask.lines if line.get_markerfacecolor() == "none"]
    assert [float(line.get_ydata()[0]) for line in hollow] == [21.7, 23.1]
    assert not published_box.lines and mask.get_ylim() != published_mask.get_ylim()


def test_a_miniature_and_missing_seeds_say_so():
    figure = study_figure(StudySettings(**STUDY), METRICS_OF_ARMS)
    text = words(figure)
    assert "not comparable" in text and "miniature" in text
    assert "seeds 2/3 (missing: 1)" in text


@pytest.mark.parametrize("change", [{"published": {}}, {"metrics": ["box_AP50novel"]}, {"seeds": [0]}])
def test_other_studies_can_be_drawn(tmp_path, change):
    settings = StudySettings(**(STUDY | {"published": {}} | change))
    metrics = {
        arm: {s: v for s, v in seeds.items() if s in settings.seeds} for arm, seeds in METRICS_OF_ARMS.items()
    }
    save_figure(study_figure(settings, metrics), tmp_path / "figure.png", dpi=50)


def test_of_more_arms_than_colours_each_has_a_line_of_its_own(tmp_path):
    arms = ["real", *(f"drawn{number}" for number in range(1, 12))]
    published = {"source": "Paper, Table 1", "real": {"mask_AP": 21.7}, "drawn4": {"mask_AP": 23.1}}
    settings = STUDY | {"arms": {arm: {"label": f"label of {arm}"} for arm in arms}, "published": published}
    values = {
        arm: {seed: metrics_file(10.0 * n + seed) for seed in range(3 - n % 2)} for n, arm in enumerate(arms)
    }
    figure = study_figure(StudySettings(**settings), values)
    seen = [axes for axes in figure.axes if axes.get_visible() and axes.lines]
    titles = [axes.get_title(loc="left") for axes in seen]
    assert titles == ["mask APr", "mask AP", "box AP", "mask AP"], "published numbers on axes of their own"
    for number, label in enumerate(label.get_text() for label in seen[0].get_yticklabels()):
        missing = ", seeds 2/3 (missing: 2)" if number % 2 else ""
        assert label == f"label of {arms[number]}{missing}"
        points = [
            x
            for line in seen[0].lines
            if line.get_marker() == "o"
            for x, y in line.get_xydata().tolist()
            if y == number
        ]
        assert points == [10.0 * number + seed for seed in range(3 - number % 2)]
    hollow = [line.get_xydata().tolist() for line in seen[-1].lines]
    assert hollow == [[[21.7, 0]], [[23.1, 1]]]
    save_figure(figure, tmp_path / "figure.png", dpi=50)


def test_rows_that_are_published_only_stand_below_the_measured_ones(tmp_path):
    published = STUDY["published"] | {"theirs": {"label": "+ theirs", "mask_AP": 22.0}}
    figure = study_figure(StudySettings(**STUDY | {"published": published}), METRICS_OF_ARMS)
    seen = [axes for axes in figure.axes if axes.get_visible() and axes.lines]
    labels = [
        [label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes if axes.get_visible()
    ]
    arms = ["real images", "+ drawn, seeds 2/3 (missing: 1)"]
    # Of masks and boxes that were measured, and of masks that papers print, if not in the first panel.
    assert [names for names in labels if names] == [arms, arms, [*arms, "+ theirs"]]
    assert [line.get_xydata().tolist() for line in seen[-1].lines] == [[[21.7, 0]], [[23.1, 1]], [[22.0, 2]]]
    save_figure(figure, tmp_path / "figure.png", dpi=50)


def test_an_arm_without_results_leaves_its_place(tmp_path):
    nothing = {"real": {0: metrics_file(None)}, "drawn": {}}
    save_figure(study_figure(StudySettings(**STUDY), nothing), tmp_path / "figure.pdf", dpi=50)


def test_equal_inputs_give_equal_figures(tmp_path, monkeypatch):
    paths = []
    for arm, seeds in METRICS_OF_ARMS.items():
        for seed, values in seeds.items():
            path = tmp_path / f"{arm}{seed}.json"
            path.write_text(json.dumps(values))
            paths.append(f"{arm}:{seed}={path}")
    contents = []
    for name in ("first", "second"):
        output = tmp_path / name / "lvis_rare.pdf"
        arguments = ["plot", "figure", "--settings", json.dumps(STUDY), "--metrics", *paths]
        monkeypatch.setattr("sys.argv", [*arguments, "--output", str(output)])
        plot.main()
        contents.append([output.with_suffix(suffix).read_bytes() for suffix in (".pdf", ".png")])
        assert output.with_name("lvis_rare.pdf.record.json").is_file()
    assert contents[0] == contents[1]
    assert b"CreationDate" not in contents[0][0]


# --- instances on an image --------------------------------------------------------------------------------


def test_masks_boxes_and_names_lie_where_the_records_say(tmp_path):
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    instance = {"category_id": 1, "bbox": [20.0, 10.0, 30.0, 20.0], "segmentation": mask_to_rle(mask)}
    with style():
        figure = Figure(figsize=(6, 4), dpi=50)
        axes = figure.add_axes([0, 0, 1, 1])
        show_image(axes, np.zeros((40, 60, 3), np.uint8))
        draw_instances(axes, [instance], (40, 60), label=lambda position, record: f"{position} cup")
    save_figure(figure, tmp_path / "drawn.png", dpi=50)
    drawn = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    assert drawn.shape == (200, 300, 3)  # five screen pixels per image pixel
    coloured = drawn.sum(axis=2) > 60
    assert coloured[60:140, 110:240].all()  # inside
    assert not coloured[155:, :].any() and not coloured[:, :95].any()  # outside
    assert "0 cup" in words(figure)


# --- the gallery ------------------------------------------------------------------------------------------


def write_set(folder, shards):
    """Ten images over `shards` shards; images 0, 3, 6 and 9 were rejected, for two reasons."""
    categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "key"}]
    (folder / "shards").mkdir(parents=True)
    paths = []
    for shard in range(shards):
        images, annotations, rejected = [], [], []
        with ShardWriter(folder / "shards" / f"{shard:05d}.zip") as writer:
            for index in range(shard, 10, shards):
                image = np.full((20, 30, 3), 20 * index, np.uint8)
                writer.add(f"{index:012d}.png", encode_image(image, "png"))
                file_name = f"{shard:05d}.zip/{index:012d}.png"
                images.append({"id": 1000 + index, "file_name": file_name, "height": 20, "width": 30})
                mask = np.zeros((20, 30), bool)
                mask[5:15, 5 + index : 15 + index] = True
                label = {
                    "image_id": 1000 + index,
                    "category_id": 1 + index % 2,
                    "bbox": [5.0 + index, 5, 10, 10],
                }
                if index % 3:
                    annotations.append(
                        label | {"id": index, "segmentation": mask_to_rle(mask), "area": 100.0}
                    )
                else:
                    reason = "min_area" if index == 9 else "more than one component"
                    rejected.append(label | {"reason": reason})
        path = folder / "shards" / f"{shard:05d}.arrow"
        digest = archive_digest(path.with_suffix(".zip"))
        info = {"shard": shard, "shards": shards, "run": "r", "archive": f"{shard:05d}.zip", "digest": digest}
        data = {"images": images, "annotations": annotations, "rejected": rejected, "categories": categories}
        write_table(path, {"info": info, **data})
        paths.append(str(path))
    return paths


def test_examples_are_chosen_by_seed_whatever_the_shards(tmp_path):
    one = read_shards(write_set(tmp_path / "one", 1))
    three = read_shards(write_set(tmp_path / "three", 3))
    for seed in range(5):
        assert choose_kept(one, 3, seed) == choose_kept(three, 3, seed)
        assert choose_rejected(one, 3, seed) == choose_rejected(three, 3, seed)
    assert len({tuple(choose_kept(one, 3, seed)) for seed in range(5)}) > 1
    assert choose_kept(one, 99, 0) == sorted(one.kept)


def test_every_reason_has_an_example(tmp_path):
    generated = read_shards(write_set(tmp_path / "drawn", 2))
    assert reason_counts(generated) == [("more than one component", 3), ("min_area", 1)]
    reasons = {generated.rejected[image][0]["reason"] for image in choose_rejected(generated, 2, 0)}
    assert reasons == {"more than one component", "min_area"}


def gallery(monkeypatch, output, *arguments):
    settings = json.dumps({"title": "Drawn", "scale": "miniature", "kept": 2, "rejected": 2, "columns": 2})
    call = ["plot", "gallery", "--settings", settings, *arguments, "--output", str(output)]
    monkeypatch.setattr("sys.argv", call)
    plot.main()
    return [output.with_suffix(suffix).read_bytes() for suffix in (".pdf", ".png")]


def test_the_gallery_of_shards_does_not_depend_on_their_number(tmp_path, monkeypatch):
    contents = []
    for shards in (1, 3):
        paths = write_set(tmp_path / str(shards) / "drawn", shards)
        contents.append(gallery(monkeypatch, tmp_path / f"gallery{shards}.pdf", "--shards", *paths))
    assert contents[0] == contents[1]


def test_the_gallery_of_a_synthetic_set_tells_reasons_in_words(tmp_path, monkeypatch):
    (shard,) = write_set(tmp_path / "drawn", 1)
    synthetic = write_filtered([Path(shard)], tmp_path / "drawn" / "set.json")
    generated = read_synthetic(synthetic)
    assert generated.name == "drawn" and len(generated.kept) == 6 and len(generated.rejected) == 4
    from_set = gallery(monkeypatch, tmp_path / "set.pdf", "--synthetic", str(synthetic))
    assert from_set == gallery(monkeypatch, tmp_path / "shards.pdf", "--shards", shard)


def test_reasons_and_counts_stand_on_the_page(tmp_path):
    generated = read_shards(write_set(tmp_path / "drawn", 1))
    text = words(gallery_page(GallerySettings(title="Drawn", scale="miniature"), [generated]))
    assert "drawn, kept: 6 of 10 images with 6 labels" in text
    assert "drawn, rejected: 4 labels; more than one component (3), min area (1)" in text
    assert "1 key: min area" in text and "scale: miniature" in text


def test_a_gallery_needs_images(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--shards or --synthetic"):
        gallery(monkeypatch, tmp_path / "gallery.pdf")
    with pytest.raises(InputError, match="no such file"):
        gallery(monkeypatch, tmp_path / "gallery.pdf", "--shards", str(tmp_path / "gone.arrow"))


def test_names_are_text_in_figures_whatever_their_letters(tmp_path):
    from gen4det.evaluation.plotting import as_text

    names = [as_text(name) for name in ("cup", "5$ \\frac{ bill$", "na\u00efve", "\u732b")]
    assert names == ["cup", r"5\$ \frac{ bill\$", "na\u00efve", "[U+732B]"]
    figure = Figure()
    for name in names:
        figure.text(0.5, 0.5, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a letter that the font lacks, matplotlib warns
        save_figure(figure, tmp_path / "names.pdf")
