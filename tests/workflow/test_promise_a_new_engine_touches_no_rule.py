"""Promise: the workflow knows engines by their contract; adding one, even one that learns, touches no rule.

The engine of `tests/stripes_engine.py` fits a palette, draws with it, fits a gauge on what was drawn and on
what a detector finds in the real images, and labels stored arrays with it.
"""

import json
from collections import Counter

import pytest

import stripes_engine
from gen4det.data.label_sets import as_dictionaries

pytestmark = pytest.mark.workflow

ENGINES = """
stripes:
  method: stripes
  images: 6
  judge: {detector: mask-rcnn}
stripes-wide:
  base: stripes
  gauge: {scale: 2.0}
  filter: {min_score: {gauge: 0.01}}
"""
RESULTS = "results/test"


@pytest.fixture
def learning(checkout):
    """A finished checkout with the engine added and its two variants in the study."""
    stripes_engine.install_room(checkout / "workflow/gen4det")
    (checkout / "config/engines/stripes.yaml").write_text(ENGINES)
    checkout.edit(
        "config/studies/lvis_rare.yaml", "\nmetrics:",
        "  stripes: {synthetic: [stripes]}\n  wide: {synthetic: [stripes-wide]}\n\nmetrics:",
    )  # fmt: skip
    checkout.edit("config/test.yaml", "mosaicfusion, gen2det]", "mosaicfusion, gen2det, stripes, wide]")
    return checkout


def test_an_engine_that_learns_is_fitted_drawn_labelled_and_filtered(learning):
    steps = Counter(fit=3, plan=1, generate=2, detect_real=1, label=4, filter=2)  # one palette, two gauges
    planned = learning.planned()
    assert planned["fit_curve"] == 2  # the report shows how the gauges learned
    assert {rule: planned[rule] for rule in steps} == steps

    sets = [f"{RESULTS}/synthetic/lvis/{name}/set.json" for name in ("stripes", "stripes-wide")]
    learning.make(*sets)
    scores = []
    for path in sets:
        data, _ = as_dictionaries(learning / path)
        assert {label["labeller"] for label in data["annotations"]} == {"gauge"}
        assert all(image["asked"] == 3 for image in data["images"])
        scores.append(data["annotations"][0]["score"])
        images = (learning / path).parent / data["info"]["images"]
        assert images.resolve() == (learning / f"{RESULTS}/synthetic/lvis/stripes/shards").resolve()
    assert scores[1] > scores[0]  # the wider gauge

    models = sorted((learning / f"{RESULTS}/engines/lvis").glob("*/*/model"))
    assert [path.relative_to(learning / f"{RESULTS}/engines/lvis").as_posix() for path in models] == [
        "stripes/gauge/model", "stripes/palette/model", "stripes-wide/gauge/model",
    ]  # fmt: skip
    assert not list((learning / f"{RESULTS}/engines").rglob("work"))

    # what a change in each step runs again
    config = "config/engines/stripes.yaml"
    for old, new, expected in (
        ("min_score: {gauge: 0.01}", "min_score: {gauge: 0.02}", Counter(filter=1)),
        ("gauge: {scale: 2.0}", "gauge: {scale: 3.0}", Counter(fit=1, label=2, filter=1)),
        ("images: 6", "images: 8", Counter(plan=1, generate=2, fit=2, label=4, filter=2)),
    ):
        learning.edit(config, old, new)
        assert learning.planned(*sets) == expected, new
        learning.edit(config, new, old)
    for module, expected in (
        ("label", Counter(label=4, filter=2)),
        ("fit_gauge", Counter(fit=2, label=4, filter=2)),
        ("draw", Counter(generate=2, fit=2, label=4, filter=2)),
        ("fit_palette", Counter(fit=3, plan=1, generate=2, label=4, filter=2)),
    ):
        path = learning / f"workflow/gen4det/engines/stripes/{module}.py"
        text = path.read_text()
        path.write_text(text + "\nCHANGED = True\n")
        assert learning.planned(*sets) == expected, module
        path.write_text(text)


def test_a_killed_fit_goes_on_and_gives_the_same_model(learning, tmp_path):
    model = f"{RESULTS}/engines/lvis/stripes/palette/model"
    learning.variables["STRIPES_LOG"] = str(tmp_path / "log")
    learning.variables["STRIPES_KILL_FIT"] = "2"
    assert learning.run(model).returncode != 0
    del learning.variables["STRIPES_KILL_FIT"]
    learning.make(model)
    assert (tmp_path / "log").read_text().split("\n")[:-1] == [f"palette {number}" for number in range(4)]
    record = json.loads((learning / f"{model}.record.json").read_text())
    assert record["step"] == "palette" and record["settings"]["engine"]["palette"] == {"steps": 4}
