"""Annotations read item by item: the same as by json.loads, refused in one line, in bounded memory."""

import json
import random
import re
import tracemalloc

import pytest

from gen4det.core import json_stream
from gen4det.core.errors import InputError
from gen4det.core.json_files import read_json
from gen4det.core.json_stream import stream_json
from gen4det.core.provenance import write_json
from gen4det.data import spool, validation
from gen4det.data.annotations import category_counts, load_annotations, to_lvis, write_annotations
from gen4det.data.label_tables import as_coco, write_table
from gen4det.data.photographs import complete_splits
from gen4det.data.spool import Spooled, load_spooled
from gen4det.data.validation import drop_unusable, validate_annotations

WHAT = "annotations"


def value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randrange(9 if depth < 3 else 7)
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 8:
        return {f"k{k}": value(rng, depth + 1) for k in range(rng.randrange(5))}
    text = "".join(rng.choice('ab"\\\n é漢😀/') for _ in range(rng.randrange(30)))
    return [None, True, rng.randrange(-(10**20), 10**20), rng.random() * 10**9, -1.5e-30, text, ""][kind]


@pytest.mark.parametrize("window", [3, 16, 61, 4096])
def test_a_stream_gives_what_json_gives_wherever_its_windows_end(tmp_path, monkeypatch, window):
    monkeypatch.setattr(json_stream, "WINDOW", window)
    rng, path = random.Random(window), tmp_path / "a.json"
    for indent, ascii in ((None, True), (2, False), (None, False)):
        data = {f"key {k}": value(rng) for k in range(8)} | {
            "one": [value(rng) for _ in range(40)],
            "two": [],
        }
        path.write_text(json.dumps(data, indent=indent, ensure_ascii=ascii), encoding="utf-8")
        found = {"one": [], "two": []}
        rest = stream_json(path, WHAT, {key: items.append for key, items in found.items()})
        assert rest == data | {"one": [], "two": []} and list(rest) == list(data)
        assert found == {key: data[key] for key in found}


BROKEN = [
    "", "  ", "{", '{"one"', '{"one":', '{"one": [', '{"one": [1', '{"one": [1,', '{"one": [1,]}',
    '{"one": [1 2]}', '{"one": [1]', '{"one": [1]]', '{"one": [1]} x', '{"one": [{"a": 1, }]}', '{"one" [1]}',
    "{one: [1]}", '{"one": ["a]}', '{"one": [tru]}', '{"one": [1], }', '{"one": [1], "b": nul}', "[1, 2",
    '{"one": ["\\x"]}', '{"one": [' + "[" * 9_000 + "]}", '{"one": ["\ttab"]}', '{"one": [-]}',
]  # fmt: skip


@pytest.mark.parametrize("window", [5, 4096])
@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_json_refuses_is_refused_in_one_line_that_names_the_file(tmp_path, monkeypatch, window, text):
    monkeypatch.setattr(json_stream, "WINDOW", window)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_json(path, WHAT)
    with pytest.raises(InputError, match=re.escape(f"{path}: not a JSON file, or cut short: ")) as caught:
        stream_json(path, WHAT, {"one": lambda item: None})
    assert "\n" not in str(caught.value)


def test_other_bad_files_are_refused_as_when_they_are_read_whole(tmp_path):
    path = tmp_path / "a.json"
    whole = {"images": [], "annotations": [], "categories": []}
    bad = [json.dumps([1, 2]), json.dumps({"a": 1}), json.dumps(whole | {"annotations": 3}), "3"]
    for text in (*bad, json.dumps({"annotations": [{}]})):
        path.write_text(text)
        with pytest.raises(InputError) as expected:
            load_annotations(path)
        with pytest.raises(InputError, match=f"^{re.escape(str(expected.value))}$"):
            load_spooled(path, tmp_path)
    with pytest.raises(InputError, match="No such file or directory; expected annotations in the layout"):
        load_spooled(tmp_path / "b.json", tmp_path)
    path.write_bytes(b'{"annotations": ["\xff"]}')
    with pytest.raises(InputError, match="not a JSON file, or cut short: .*codec can't decode"):
        load_spooled(path, tmp_path)
    path.write_text('{"annotations": [1], "annotations": [2]}')
    with pytest.raises(InputError, match="annotations stands there twice"):
        load_spooled(path, tmp_path)


def test_a_problem_is_told_by_its_place_in_the_file_not_in_a_window(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "WINDOW", 32)
    path, text = tmp_path / "a.json", '{"one": [' + "12345678, " * 50 + "oops]}"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"\(character {text.index('oops')}\)$"):
        stream_json(path, WHAT, {"one": lambda item: None})


# --- the annotations ------------------------------------------------------------------------------


def scene(form: str, seed: int = 0, images: int = 12, labels: int = 60) -> dict:
    """Annotations in an order of their own, some without a mask or an area, some crowds, some unusable."""
    rng = random.Random(seed)
    annotations = []
    for number in range(1, labels + 1):
        x, y = rng.randrange(40), rng.randrange(30)
        label = {"id": number, "image_id": rng.randrange(1, images), "category_id": rng.choice([1, 2, 5])}
        label["bbox"] = [x, y, 8, 9 if number % 7 else 0]
        if number % 5:
            label["segmentation"] = [[x, y, x + 8, y, x + 8, y + 9.5]]
        if number % 3:
            label["area"] = 36 + rng.random()
        if form == "coco" or number % 11 == 0:
            label["iscrowd"] = int(number % 11 == 0)
        annotations.append(label)
    return {
        "info": {"description": "ä scene"},
        "annotations": annotations,
        "images": [
            {"id": k, "file_name": f"{k}.png", "width": 64, "height": 48} for k in range(1, images + 1)
        ],
        "categories": [{"id": k, "name": f"thing {k}"} for k in (1, 2, 5, 9)],
    }


@pytest.mark.parametrize("form", ["lvis", "coco"])
def test_spooled_annotations_end_as_the_same_files_as_those_in_memory(tmp_path, monkeypatch, form):
    """Checked, completed and written: JSON and table, to the byte; against the dictionary in one piece."""
    monkeypatch.setattr(spool, "_TOGETHER", 7)
    monkeypatch.setattr(validation, "CHUNK", 13)
    splits: dict[str, list] = {"memory": [], "disk": []}
    for seed in (0, 1):
        path = tmp_path / f"{seed}.json"
        path.write_text(json.dumps(scene(form, seed)))
        for name, data in (("memory", load_annotations(path)), ("disk", load_spooled(path, tmp_path))):
            data, dropped = drop_unusable(data, path)
            assert len(dropped) == 8 and dropped[0].startswith("7 (box [")
            validate_annotations(data, source=path, allow_empty_categories=True)
            splits[name].append(data)
    written = {}
    for name, (train, val) in splits.items():
        assert isinstance(train["annotations"], Spooled) == (name == "disk")
        for split, data in zip(("train", "val"), complete_splits(train, val, form, "a.json"), strict=True):
            write_annotations(tmp_path / f"{name}.{split}.json", data)
            write_table(tmp_path / f"{name}.{split}.arrow", data)
            for end in ("json", "arrow"):
                written.setdefault((split, end), []).append((tmp_path / f"{name}.{split}.{end}").read_bytes())
            if name == "memory":
                write_json(tmp_path / "whole.json", data)
                assert (tmp_path / "whole.json").read_bytes() == written[split, "json"][0]
                table = as_coco(tmp_path / f"{name}.{split}.arrow")
                assert sorted(table["annotations"], key=lambda it: it["id"]) == data["annotations"]
    assert all(memory == disk for memory, disk in written.values())


def test_negative_categories_and_counts_are_those_of_a_plain_count(tmp_path):
    data = scene("coco")
    done = to_lvis(data)
    for image in done["images"]:
        of_image = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        shown, crowds = (
            {a["category_id"] for a in of_image},
            {a["category_id"] for a in of_image if a["iscrowd"]},
        )
        assert image["neg_category_ids"] == [c for c in (1, 2, 5, 9) if c not in shown]
        assert image["not_exhaustive_category_ids"] == sorted(crowds)
    objects = [a for a in data["annotations"] if not a["iscrowd"]]
    assert category_counts(data) == {
        c: (
            len({a["image_id"] for a in objects if a["category_id"] == c}),
            sum(a["category_id"] == c for a in objects),
        )
        for c in (1, 2, 5, 9)
    }


@pytest.mark.parametrize(
    "change",
    [
        ("id", 3), ("id", 2**63), ("id", True), ("image_id", 77), ("category_id", 4), ("bbox", [1, 2, 3]),
        ("segmentation", [[1, 2, 3]]), ("segmentation", "a"), ("iscrowd", 2), ("area", "9"),
        ("bbox", [0, 0, 99, 9]),
    ],
)  # fmt: skip
def test_bad_annotations_on_the_disk_are_told_as_those_in_memory(tmp_path, change):
    data = scene("coco")
    data["annotations"] = [a for a in data["annotations"] if a["bbox"][3]]
    data["annotations"][40] |= dict([change])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    messages = []
    for read in (load_annotations(path), load_spooled(path, tmp_path)):
        with pytest.raises(InputError) as caught:
            validate_annotations(read, source=path, allow_empty_categories=True)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_record_that_is_no_object_is_told_by_its_place(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(scene("coco") | {"annotations": [scene("coco")["annotations"][0], 7]}))
    with pytest.raises(InputError, match=r"a\.json: annotations\[1\]: expected an object, got 7"):
        validate_annotations(load_spooled(path, tmp_path), source=path)


def test_memory_does_not_grow_with_the_masks_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "WINDOW", 2**14)
    monkeypatch.setattr(validation, "CHUNK", 50)
    monkeypatch.setattr(spool, "_TOGETHER", 50)
    peaks, path = [], tmp_path / "a.json"
    for labels in (100, 300):
        data = scene("coco", labels=labels)
        for label in data["annotations"]:
            label["bbox"][3] = 9
            label["segmentation"] = [[round(it % 20 + 0.25, 2) for it in range(200)]]
        path.write_text(json.dumps(data))
        del data
        tracemalloc.start()
        read = load_spooled(path, tmp_path)
        validate_annotations(read, source=path, allow_empty_categories=True)
        write_annotations(tmp_path / "b.json", read)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 200 * 1000  # bytes; the numbers of one polygon alone take 6,400
