"""The page on a study stands alone and leads from every number to what is behind it; seen in a browser."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from browser import Tab
from finished_study import Results, metrics_of, page_of
from gen4det.core.errors import InputError
from gen4det.core.yaml_files import read_yaml
from gen4det.evaluation.page_curves import WIDTH, drawings, read_losses
from gen4det.evaluation.page_settings import PageSettings
from gen4det.evaluation.pedigree import Pedigree
from gen4det.orchestration.jobs import Jobs
from gen4det.orchestration.page_jobs import PageJobs
from gen4det.orchestration.project import load_project

ROOT = Path(__file__).parents[2]

TABLE = {
    "title": "Toy, rare categories",
    "scale": "miniature",
    "arms": {"real": {"label": "real images"}, "drawn": {"label": "+ Toy engine"}},
    "metrics": ["mask_APr", "mask_AP", "box_AP"],
    "seeds": [0, 1, 2],
    "published": {
        "source": "Toy et al. (arXiv 0000.00000), Table 1",
        "real": {"mask_AP": 21.7},
        "drawn": {"mask_AP": 23.1},
    },
    "sets": {"drawn": ["toy/mosaicfusion"]},
    "laid_out": ["toy/mosaicfusion"],
    "dataset": "toy",
    "detector": "mask-rcnn",
}
SETTINGS = {
    "table": TABLE,
    "question": "Do toys help?",
    "arms": {
        "real": {"dataset": "toy", "detector": "mask-rcnn", "real": True},
        "drawn": {"dataset": "toy", "detector": "mask-rcnn", "real": True, "sets": ["toy/mosaicfusion"]},
    },
    "sets": {
        "toy/mosaicfusion": {
            "method": "mosaicfusion",
            "changed": {"region_height": [384, 64]},
            "models": {"diffusion": "resources/miniature/stable-diffusion"},
        }
    },
    "references": {
        "mosaicfusion": {
            "title": "MosaicFusion: Data & Augmenters",
            "authors": ["Jiahao Xie", "Wei Li", "others"],
            "year": 2024,
            "journal": "IJCV",
            "arxiv": "2309.13042",
        },
        "pytorch": {
            "title": "PyTorch",
            "authors": ["Adam Paszke", "others"],
            "year": 2019,
            "booktitle": "NeurIPS",
        },
        "lvis": {"title": "LVIS", "authors": ["A. Gupta", "P. Dollár"], "year": 2019, "booktitle": "CVPR"},
    },
    "cited": {
        "method": {"mosaicfusion": ["mosaicfusion"]},
        "package": {"torch": ["pytorch"]},
        "protocol": {"lvis": ["lvis"]},
    },
    "methods": {
        "mosaicfusion": {
            "name": "MosaicFusion",
            "idea": "Several objects on one canvas.",
            "paper": "Xie et al., MosaicFusion, 2023, arXiv:2309.13042",
            "arxiv": "2309.13042",
            "code": "S-Lab License 1.0",
            "differs": ["Each image has a random stream of its own."],
            "preset": {"region_height": 384, "filter": {"min_box_side": 0}},
        }
    },
}


def rows(folder: Path, *, seeds: int = 3, found=metrics_of, **chosen: object) -> tuple:
    """What a page of two rows reads: real images, and with a set that a filter of these settings leaves."""
    results = Results(folder)
    made = results.draw("mosaicfusion", **chosen)
    metrics = [f"real:{seed}={results.train('real', seed, found(20.0 + seed))}" for seed in range(seeds)]
    metrics += [
        f"drawn:{seed}={results.train('drawn', seed, found(25.0 + seed), made)}" for seed in range(seeds)
    ]
    return results, metrics, {"toy/mosaicfusion": made}


def study(folder: Path, settings: dict = SETTINGS, *, figure: bool = False, **more: object) -> Path:
    """The page of such rows."""
    results, metrics, sets = rows(folder, **more)
    return page_of(results, settings, metrics, sets, figure=figure)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return study(tmp_path_factory.mktemp("page") / "results", figure=True, min_box_side=4)


# --- in a browser ------------------------------------------------------------------------------------

CONTRASTS = """
(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = c => { const v = c / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const ground = element => {
    for (let it = element; it; it = it.parentElement) {
      const colour = rgb(getComputedStyle(it).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const texts = [...document.querySelectorAll("body *")].filter(it =>
    !it.closest("svg") && [...it.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
  return texts.map(it => {
    const pair = [luminance(rgb(getComputedStyle(it).color)), luminance(ground(it))].sort((a, b) => b - a);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), it.outerHTML.slice(0, 80)];
  }).sort((a, b) => a[0] - b[0])[0];
})()
"""
"""The worst contrast of any text against what is behind it, after WCAG 2, and where."""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1600])
def test_the_page_fits_any_width_in_light_and_dark_and_asks_nothing_of_a_network(page, width, dark):
    with Tab(page, width=width, dark=dark) as tab:
        assert tab.run("innerWidth") == width
        tab.run("document.querySelectorAll('details').forEach(it => { it.open = true; })")
        assert tab.run("document.documentElement.scrollWidth") <= width, (
            "nothing is scrolled sideways but tables"
        )
        images = tab.run("[...document.images].map(it => [it.complete, it.naturalWidth, it.alt])")
        assert len(images) > 3 and all(complete and size > 0 and alt for complete, size, alt in images)
        worst, where = tab.run(CONTRASTS)
        assert worst >= 4.5, where
        paper = tab.run("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") != dark
        assert not tab.messages


def test_every_link_leads_somewhere_and_nothing_lies_elsewhere(page):
    text = page.read_text()
    with Tab(page) as tab:
        lost = tab.run(
            "[...document.querySelectorAll('a[href^=\"#\"]')].map(it => it.hash.slice(1))"
            ".filter(id => !document.getElementById(id))"
        )
        assert lost == []
        twice = tab.run(
            "(ids => ids.filter((id, place) => ids.indexOf(id) !== place))"
            "([...document.querySelectorAll('[id]')].map(it => it.id))"
        )
        assert twice == []
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert {it.partition(":")[0] for it in sources if not it.startswith("#")} == {"data", "https"}
    assert {it for it in sources if it.startswith("https")} == {"https://arxiv.org/abs/2309.13042"}
    assert "<script" not in text and "@import" not in text and "url(" not in text


def test_boxes_are_switched_with_the_keyboard_alone(page):
    shown = "[...document.querySelectorAll('.frame .{}')].map(it => getComputedStyle(it).display !== 'none')"
    with Tab(page, width=800) as tab:
        for name, before in (("kept", True), ("rejected", True), ("outlines", False)):
            for _ in range(80):
                tab.press("Tab")
                if tab.run("document.activeElement.id") == f"show-{name}":
                    break
            assert tab.run("document.activeElement.matches(':focus-visible')"), "one sees where one is"
            kind = {"outlines": "outline"}.get(name, name)
            seen = tab.run(shown.format(kind))
            assert seen and set(seen) == {before}
            tab.press(" ")
            assert set(tab.run(shown.format(kind))) == {not before}
            tab.press(" ")
            assert set(tab.run(shown.format(kind))) == {before}


def test_from_a_cell_of_the_page_to_seeds_settings_and_images(page):
    """With the keyboard: a number, the seeds behind it, the set that was trained on, shards and manifest."""
    with Tab(page) as tab:
        tab.run("document.querySelector('.results a[href=\"#seeds-drawn-mask_APr\"]').focus()")
        tab.press("Enter")
        assert tab.run("location.hash") == "#seeds-drawn-mask_APr"
        here = "document.querySelector(':target').closest('article')"
        values = tab.run(f"[...{here}.querySelectorAll('tbody tr')].map(it => it.innerText.split(/\\s+/)[1])")
        assert values == ["25.00", "26.00", "27.00"]
        behind = tab.run(f"{here}.textContent")
        for told in ("schedule: 2.0", "weights.safetensors", "iterations", "unchanged since", "code"):
            assert told in behind
        tab.run(f"{here}.querySelector('a[href=\"#set-toy-mosaicfusion\"]').focus()")
        tab.press("Enter")
        made = tab.run("document.querySelector(':target').textContent")
        assert "manifest.jsonl" in made and "00001.arrow" in made and "run_seed 3" in made
        assert tab.run("document.querySelectorAll(':target .picture img').length") == 5
        # A closed part opens for the keyboard.
        tab.run("document.querySelector(':target summary').focus()")
        tab.press("Enter")
        assert tab.run("document.querySelector(':target details').open")


# --- what it says -------------------------------------------------------------------------------------


def test_the_page_shows_question_table_cards_cost_and_filters(page):
    text = page.read_text()
    for told in (
        "Do toys help?", "26.0 ± 1.0", "+5.0 ± 0.0", "more than chance", "arXiv 2309.13042",
        "S-Lab License 1.0",
        "Each image has a random stream of its own.", "region_height", "384", "seconds for an image offered",
        "share kept", "component too small", "min box side",
    ):  # fmt: skip
        assert told in text, told
    assert text.count('href="#data-toy"') > 5 and 'id="data-toy"' in text
    assert "21.7" not in text.partition('id="published"')[0], "published numbers have a part of their own"
    assert "published, not measured here" in text and "Toy et al. (arXiv 0000.00000), Table 1" in text


def test_a_row_that_is_published_only_stands_among_the_published_ones(tmp_path):
    theirs = {"label": "+ Theirs", "mask_AP": 22.0}
    table = TABLE | {"published": TABLE["published"] | {"theirs": theirs}}
    text = study(tmp_path / "results", SETTINGS | {"table": table}, seeds=1).read_text()
    before, _, after = text.partition('id="published"')
    assert "+ Theirs" not in before and after.count("+ Theirs") == 1
    assert "<td>22.0<small>+0.3</small></td>" in after


def test_a_miniature_says_so_and_the_full_scale_does_not(page, tmp_path):
    assert "not comparable with published numbers" in page.read_text()
    full = study(tmp_path / "results", SETTINGS | {"table": TABLE | {"scale": "paper"}}, seeds=1)
    assert "not comparable with published numbers" not in full.read_text()


def test_the_same_results_give_the_same_page(tmp_path):
    results, metrics, sets = rows(tmp_path / "results", seeds=1)
    pages = [page_of(results, SETTINGS, metrics, sets, name) for name in ("once", "twice")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_one_seed_no_masks_and_no_sets(tmp_path):
    results = Results(tmp_path / "results")
    metrics = [f"real:0={results.train('real', 0, metrics_of(20.0, masks=False))}"]
    table = {**TABLE, "arms": {"real": {}}, "seeds": [0], "published": {}, "sets": {}, "laid_out": []}
    arms = {"real": {"dataset": "toy", "detector": "mask-rcnn", "real": True}}
    text = page_of(results, {"table": table, "arms": arms}, metrics, {}).read_text()
    assert not lost_links(text)
    assert "20.0" in text and "±" not in text and 'id="engines"' not in text and 'id="published"' not in text


def test_an_arm_that_was_refused_and_its_empty_set_are_shown_as_such(tmp_path):
    results = Results(tmp_path / "results")
    made = results.draw("mosaicfusion", min_box_side=60)
    reason = "all 10 labels of mosaicfusion were rejected: 10 x <min_box_side>"
    metrics = [f"real:0={results.train('real', 0, metrics_of(20.0))}"]
    metrics += [f"drawn:0={results.train('drawn', 0, {'refused': reason}, made)}"]
    table = TABLE | {"seeds": [0]}
    text = page_of(results, SETTINGS | {"table": table}, metrics, {"toy/mosaicfusion": made}).read_text()
    assert "Nothing is left to train on" in text and not lost_links(text)
    assert "not trained: all 10 labels" in text and "<min_box_side>" not in text, "escaped"


def lost_links(text: str) -> set[str]:
    """Addresses inside a page that lead nowhere."""
    return set(re.findall(r'href="#([^"]+)"', text)) - set(re.findall(r'\bid="([^"]+)"', text))


def test_a_missing_seed_and_an_arm_without_results_are_shown_missing(tmp_path):
    results = Results(tmp_path / "results")
    made = results.draw("mosaicfusion")
    metrics = [f"real:2={results.train('real', 2, metrics_of(20.0))}"]
    text = page_of(results, SETTINGS, metrics, {"toy/mosaicfusion": made}).read_text()
    assert "1/3 (missing: 0, 1)" in text and "Missing seeds: 0, 1, 2." in text and "Not measured yet." in text
    assert not lost_links(text)


def test_with_one_seed_the_page_says_that_chance_is_not_known(tmp_path):
    results, metrics, sets = rows(tmp_path / "results", seeds=1)
    table = {**TABLE, "seeds": [0]}
    text = page_of(results, SETTINGS | {"table": table}, metrics, sets).read_text()
    assert "One seed cannot say whether a change is more than chance." in text
    assert "could be chance" not in text and "95%" not in text and "In words" not in text


def test_several_sets_of_an_engine_share_its_card(tmp_path):
    results, metrics, sets = rows(tmp_path / "results", seeds=1)
    sets |= {"toy/mosaicfusion-large": results.draw("mosaicfusion-large", min_box_side=20)}
    facts = SETTINGS["sets"]["toy/mosaicfusion"]
    settings = SETTINGS | {"sets": {name: facts for name in sets}}
    card = page_of(results, settings, metrics, sets).read_text().partition('<article class="card"')[2]
    card = card.partition("</article>")[0]
    assert card.count('<tr><th scope="row"><a') == 2, "a line for each"
    assert card.count("resources/miniature/stable-diffusion") == 1, "what they share is said once"
    assert "settings of toy/mosaicfusion-large otherwise" in card


def test_results_without_records_are_shown_without_a_way_back(tmp_path):
    results, metrics, sets = rows(tmp_path / "results", seeds=1)
    for record in (tmp_path / "results").rglob("*.record.json"):
        record.unlink()
    text = page_of(results, SETTINGS, metrics, sets).read_text()
    assert "No records lie beside these results." in text and "20.0" in text and not lost_links(text)


def test_names_of_strangers_are_text_on_the_page(tmp_path):
    arms = TABLE["arms"] | {"real": {"label": "<script>alert(1)</script>"}}
    text = study(tmp_path / "results", SETTINGS | {"table": TABLE | {"arms": arms}}, seeds=1).read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text


def test_a_set_that_is_not_given_is_named(tmp_path):
    results = Results(tmp_path / "results")
    metrics = [f"real:0={results.train('real', 0, metrics_of(20.0))}"]
    with pytest.raises(InputError, match="--synthetic: toy/mosaicfusion is not given"):
        page_of(results, SETTINGS, metrics, {})


# --- the parts ----------------------------------------------------------------------------------------


def test_the_way_back_goes_from_metrics_to_shards_and_data(tmp_path):
    results = Results(tmp_path / "results")
    made = results.draw("mosaicfusion")
    metrics = results.train("drawn", 0, metrics_of(20.0), made)
    pedigree = Pedigree()
    stages = [link.stage for link in pedigree.way_back(metrics)]
    assert stages[:2] == ["measure", "predict"] and stages.count("generate") == 2
    assert set(stages[2:]) == {"train", "filter", "generate", "plan", "render"} and len(stages) == 8
    name, recorded = next(iter(pedigree.link(metrics).inputs.items()))
    assert pedigree.state(name, recorded) == "unchanged since"
    Path(name).write_bytes(b"others")
    assert Pedigree().state(name, recorded) == "CHANGED since"
    Path(name).unlink()
    assert Pedigree().state(name, recorded) == "not here"


def test_curves_share_their_axes_and_leave_out_what_was_not_trained(tmp_path):
    table = tmp_path / "losses.csv"
    table.write_text(
        "iteration,loss\n" + "".join(f"{step},{2 ** -(step / 100)}\n" for step in range(1, 1001))
    )
    steps, losses = read_losses(table)
    assert len(steps) <= 120 and steps[-1] == 1000 and losses[0] == pytest.approx(1, abs=0.05)
    found = drawings({"a": [(steps, losses)], "b": [([500.0], [1.0])], "c": [([], [])]})
    assert set(found) == {"a", "b"} and found["a"].highest == found["b"].highest == 1.0
    assert found["b"].lines[0] == f"{WIDTH / 2:.1f},0.0", "half of the iterations, the highest loss"
    places = [tuple(map(float, point.split(","))) for point in found["a"].lines[0].split()]
    slopes = {round((b[1] - a[1]) / (b[0] - a[0]), 1) for a, b in zip(places[:-2], places[1:-1], strict=True)}
    assert max(slopes) - min(slopes) <= 0.1, "an exponential is a line"
    table.write_text("step,value\n1,2\n")
    with pytest.raises(InputError, match="not a table of losses"):
        read_losses(table)


# --- the configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["config", "paper"])
def test_every_study_has_a_page_that_knows_its_question_engines_and_presets(scale):
    values = read_yaml(ROOT / f"config/{scale}.yaml")
    studies = sorted(path.stem for path in (ROOT / "config/studies").glob("*.yaml") if path.stem != "own")
    jobs = Jobs(load_project(values | {"studies": studies, "arms": {}}, source=scale, root=ROOT))
    pages = PageJobs(jobs)
    assert pages.pages(None) == [f"{jobs.results}/reports/{study}/index.html" for study in studies]
    for study in studies:
        words = SimpleNamespace(study=study)
        text = pages.settings(words)
        assert len(shlex.quote(text)) < 60_000, (
            "a job's command is one argument, of which Linux takes 128 KiB"
        )
        settings = PageSettings.model_validate(json.loads(text)["settings"])
        assert settings.question.endswith("?")
        assert set(settings.arms) == set(settings.table.arms)
        named = {name for arm in settings.arms.values() for name in arm.sets}
        assert named == set(settings.sets) == {it.partition("=")[0] for it in pages.sets(words)}
        for method, facts in settings.methods.items():
            assert facts.idea and facts.preset and facts.code, method
            assert facts.arxiv in facts.paper


def test_what_a_scale_changes_in_an_engine_stands_on_the_page():
    jobs = Jobs(load_project(read_yaml(ROOT / "config/config.yaml"), source="config", root=ROOT))
    page = json.loads(PageJobs(jobs).settings(SimpleNamespace(study="lvis_rare")))["settings"]
    changed = page["sets"]["lvis/gen2det"]["changed"]
    assert changed["denoising.steps"] == [50, 8] and changed["filter.agreement.min_score"] == [0.2, 0.1]
    assert "feather" in changed and "batch_size" not in changed
    assert page["sets"]["lvis/gen2det"]["models"] == {"inpainting": "resources/miniature/gligen-inpainting"}


def test_an_engine_that_nobody_has_described_has_a_card_of_its_settings(tmp_path):
    """As one has it that was just added: no file of this repository knows it."""
    results, metrics, sets = rows(tmp_path / "results", seeds=1)
    methods = {"mine": {"name": "mine", "idea": ""}}
    facts = {"method": "mine", "changed": {"stripes": [None, 3]}}
    settings = SETTINGS | {"methods": methods, "sets": {"toy/mosaicfusion": facts}}
    text = page_of(results, settings, metrics, sets).read_text()
    assert "stripes" in text and "arXiv 2309" not in text and "preset" not in text
