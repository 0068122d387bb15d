"""The report: `make report` makes what is missing and the pages; they are looked at in a browser."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from browser import Tab, visit
from checkouts import CONFIG, ROOT, copy_checkout
from patience import patience

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory) -> Path:
    """A report that `make report` made where a page is missing, as after a run that was asked for less."""
    checkout = copy_checkout(finished, tmp_path_factory.mktemp("report") / "checkout")
    shutil.copy2(ROOT / "Makefile", checkout.folder)
    for path in checkout.folder.glob("results/test/synthetic/*/*/filter.p*"):
        path.unlink()
    python = Path(sys.executable).parent
    subprocess.run(
        ["make", "--assume-old=setup", "report", f"BIN={python}", f"CONFIGFILE={CONFIG}"],
        cwd=checkout.folder, env=checkout.environment(), check=True, timeout=patience(600),
    )  # fmt: skip
    assert (checkout / "results/report.zip").is_file()
    assert list(checkout.folder.glob("results/test/synthetic/*/*/filter.png"))
    return checkout / "results/report/report.html"


@pytest.mark.parametrize("width", [1400, 800])
def test_the_first_page_shows_table_and_figure(page, width):
    seen = visit(
        page,
        """
        const menu = document.querySelector("nav"), text = document.querySelector(".prose");
        const table = document.querySelector("table.study"), figure = text.querySelector("img");
        return {
          arms: [...table.querySelectorAll("td:first-child")].map(it => it.innerText),
          figure: figure.naturalWidth, shown: box(figure).width, bottom: box(figure).bottom,
          menu: box(menu).right, left: box(table).left, right: box(figure).right, width: innerWidth,
          graph: document.querySelectorAll("svg.marks, canvas.marks").length,
        };
        """,
        width=width,
    )
    assert seen["arms"][0] == "real images" and len(seen["arms"]) == 3
    assert seen["figure"] > 1000 and seen["shown"] > 400 and seen["graph"] == 1
    assert seen["bottom"] < 1000, "table and figure are on the first screen"
    assert seen["menu"] <= seen["left"] and seen["right"] <= seen["width"] == width, (
        "nothing is covered or cut"
    )


@pytest.mark.parametrize("width", [1400, 800])
def test_two_clicks_lead_to_the_gallery(page, width):
    seen = visit(
        page,
        """
        named("nav a, nav li, nav span, nav button", "Studies").click();
        await wait(500);
        const row = all("nav tr").find(it => it.innerText.startsWith("generated images"));
        row.querySelector("a, button").click();
        await wait(1500);
        const image = all("img").find(it => it.src.includes("lvis_rare_gallery"));
        while (!image.complete) await wait(100);
        const menu = document.querySelector("nav");
        return {pixels: image.naturalWidth, left: box(image).left, menu: box(menu).right};
        """,
        width=width,
    )
    assert seen["pixels"] > 500
    assert seen["menu"] <= seen["left"], "nothing of it is out of reach"


def test_the_page_on_the_study_shows_real_results_and_leads_back_to_their_images(page):
    study = page.parents[1] / "test/reports/lvis_rare/index.html"
    with Tab(study, width=800) as tab:
        assert tab.run("document.documentElement.scrollWidth") <= 800 and not tab.messages
        arms = tab.run("[...document.querySelectorAll('.results tbody th')].map(it => it.innerText)")
        assert len(arms) == 3 and arms[0] == "real images"
        for engine in ("mosaicfusion", "gen2det"):
            made = tab.run(f"document.getElementById('set-lvis-{engine}').textContent")
            assert "shards/00001.arrow" in made and "manifest.jsonl" in made and "unchanged since" in made
            assert tab.run(f"document.querySelectorAll('#set-lvis-{engine} .picture img').length") > 3
        behind = tab.run("document.getElementById('row-gen2det').textContent")
        assert "weights.safetensors" in behind and "CHANGED" not in tab.run("document.body.textContent")
        lost = tab.run(
            "[...document.querySelectorAll('a[href^=\"#\"]')]"
            ".filter(it => !document.getElementById(it.hash.slice(1))).length"
        )
        assert lost == 0
