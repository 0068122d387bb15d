"""What InstaGen plans: prompts, seeds, amounts; names of all kinds; which settings are refused."""

from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from gen4det.core.errors import InputError
from gen4det.diffusion.class_vectors import class_vectors
from gen4det.diffusion.text import TextStates
from gen4det.engines.instagen.plan import plan_manifest, require_readable
from gen4det.engines.instagen.settings import Settings
from gen4det.engines.instagen.vocabulary import Vocabulary
from gen4det.engines.instagen.work import drawing, fitting, labelling
from gen4det.engines.work import DataSize
from instagen_set import small
from tiny_models import tiny_pipeline, tiny_tokenizer

NAMES = {0: "cup", 1: "salt and pepper, ground", 4: "tennis_cap", 9: "fish", 12: "spatula"}
CATEGORIES = [{"id": key, "name": name, "def": f"a {name}"} for key, name in NAMES.items()]
WORDS = Vocabulary(base=(4, 9), novel=(0, 1), every=(0, 1, 4, 9, 12))


def plan(**images):
    settings = small(images={"base_per_category": 3, "novel_per_category": 5, **images})
    return plan_manifest(CATEGORIES, WORDS, settings, run_seed=0)


def test_every_category_has_its_number_of_images_and_stands_first():
    rows = plan()
    assert Counter(row["categories"][0] for row in rows) == {4: 3, 9: 3, 0: 5, 1: 5}
    assert [row["number"] for row in rows[:4]] == [0, 0, 1, 1]
    assert [row["set"] for row in rows] == ["base"] * 6 + ["novel"] * 10
    assert [row["batch"] for row in rows] == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4]
    assert len({row["seed"] for row in rows}) == len(rows)


def test_half_of_the_prompts_name_a_second_other_category():
    rows = plan(base_per_category=400, novel_per_category=400)
    for kind, others in (("base", {4, 9}), ("novel", {0, 1, 4, 9})):
        of_kind = [row for row in rows if row["set"] == kind]
        pairs = [row["categories"] for row in of_kind if len(row["categories"]) == 2]
        assert len(pairs) / len(of_kind) == pytest.approx(0.5, abs=0.05)
        assert all(first != second for first, second in pairs) and {second for _, second in pairs} == others
    assert 12 in {row["categories"][-1] for row in plan(novel_per_category=400, second_of_novel="all")}


def test_more_images_leave_the_others_as_they_are():
    few, many = plan(novel_per_category=2), plan(novel_per_category=5)
    known = {(row["set"], row["categories"][0], row["number"]): row for row in many}
    for row in few:
        same = known[row["set"], row["categories"][0], row["number"]]
        assert all(row[key] == same[key] for key in ("seed", "prompt", "categories"))


def test_a_name_with_and_is_one_category():
    """The released code takes prompts apart at " and " (its weakness 17)."""
    rows = plan(pairs=1.0)
    row = next(row for row in rows if row["categories"][0] == 1)
    other = NAMES[row["categories"][1]].replace("_", " ")
    assert row["prompt"] == f"a photograph of salt and pepper, ground and {other}"
    assert row["annotated_category_ids"] == sorted(row["categories"])


def test_a_category_that_nobody_labels_is_not_among_the_labelled_ones():
    rows = plan(novel_per_category=200, second_of_novel="all")
    row = next(row for row in rows if row["categories"][-1] == 12)
    assert row["annotated_category_ids"] == [row["categories"][0]]


def test_definitions_stand_in_parentheses():
    rows = plan(definition=True, pairs=0.0)
    assert {row["prompt"] for row in rows if row["set"] == "base"} == {
        "a photograph of tennis cap (a tennis_cap)",
        "a photograph of fish (a fish)",
    }


def test_a_name_of_a_hundred_words_is_refused_by_name():
    long = "tree " * 100
    categories = [{"id": 4, "name": long}, *CATEGORIES[:2], *CATEGORIES[3:]]
    rows = plan_manifest(categories, WORDS, small(), run_seed=0)
    with pytest.raises(InputError, match=r"category 'tree tree .* ends beyond the 75 tokens"):
        require_readable(rows, categories, tiny_tokenizer())
    with pytest.raises(InputError, match=r"category 'tree tree .* its name is of \d+ tokens, of which"):
        class_vectors(TextStates(tiny_pipeline(layers=1)), [long])


def test_a_cut_definition_is_no_more_than_a_warning(caplog):
    categories = [it | {"def": "for tea " * 60} for it in CATEGORIES]
    settings = small(images={"definition": True, "pairs": 0.0})
    require_readable(plan_manifest(categories, WORDS, settings, 0), categories, tiny_tokenizer())
    assert "4 prompts are longer than the 77 tokens that are read" in caplog.text


def test_a_class_vector_is_the_mean_over_the_tokens_of_its_name():
    text = TextStates(tiny_pipeline(layers=1))
    names = ["cup", "christmas tree", "spatula"]
    found = class_vectors(text, names)
    assert found.shape == (3, 16) and found.isfinite().all()
    before = len(text.tokenizer("a photograph of a").input_ids) - 1
    for name, vector in zip(names, found, strict=True):
        count = len(text.tokenizer(name).input_ids) - 2
        states = text(f"a photograph of a {name}")[0]
        torch.testing.assert_close(vector, states[before : before + count].mean(0))
        end = text.tokenizer(f"a photograph of a {name}").input_ids.index(text.tokenizer.eos_token_id)
        assert before + count == end
        torch.testing.assert_close(class_vectors(text, [name])[0], vector)
    assert count == 3  # spat, ul, a
    with pytest.raises(InputError, match="category ' ': its name has no word"):
        class_vectors(text, [" "])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "a photograph"}, "prompt: must contain {} once"),
        ({"images": {"denoising": {"scheduler": "euler", "steps": 9}}}, "expected one of ddim, pndm"),
        ({"images": {"denoising": {"scheduler": "ddim", "steps": 1}}}, "at least 2"),
        ({"head": {"batch_size": 5, "micro_batch": 2}}, "2 does not divide batch_size 5"),
        ({"head": {"shape": {"channels": 36, "heads": 8}}}, "heads: 8 heads do not divide 36 channels"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Settings(**change)


def test_the_published_amounts_are_counted():
    coco = DataSize(
        train_images=118_287, val_images=5000, categories={"f": 80}, boxes=860_001, pixels=3e5,
        annotation_bytes=1,
    )  # fmt: skip
    found = drawing(Settings(), coco)
    assert found.images == 60_000 + 51_000 and found.evaluations == 100
    assert drawing(Settings(vocabulary="closed"), coco).images == 80 * 1250
    generator, head = (fitting(Settings(), step, coco) for step in ("generator", "head"))
    assert generator.images == 6 * 107_761 and generator.evaluations == 3
    assert head.images == 12 * 60_000 + 6 * 17 * 1250  # the U-Net sees an image once for both guidance halves
    assert labelling(Settings(), coco).images == 51_000
    assert labelling(Settings(labels={"novel_per_category": 1000}), coco).images == 17_000
    assert labelling(Settings(labels={"novel_by": "detector"}), coco).images == 0
