"""Pages hold what the published results render, wherever a block's markers stand, and pictures are drawn from them."""

import json
import math
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report
from benchmarks.__main__ import OTHERS, RESULTS, published
from benchmarks.edge import report as edge
from benchmarks.estimators import report as estimators
from benchmarks.publishing import pages, plots
from benchmarks.quantization import report as quantization
from benchmarks.sparsity import report as sparsity

RENDERERS = {
    "edge": edge.render,
    "estimators": estimators.render,
    "quantization": quantization.render,
    "sparsity": sparsity.render,
}
SAY = "say: python -m benchmarks --pages, or python -m benchmarks.NAME --from benchmarks/results/NAME.json --pages"


def published_blocks():
    found = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in OTHERS}
    return report.blocks(published()) | {name: render(found[name]) for name, render in RENDERERS.items()}


def block(name, *lines):
    return "\n".join([f"<!-- benchmark: {name} -->", *lines, "<!-- /benchmark -->", ""])


def test_blocks_are_rendered_between_their_markers():
    table = "| 1 |\n| \\1 |"  # no reference to a group
    stale = "".join(["# A library\n\n", block("one", "stale"), "\nText.\n", block("other", "kept")])
    once = pages.with_blocks(stale, {"one": table, "elsewhere": "x"})
    assert once == "".join(["# A library\n\n", block("one", table), "\nText.\n", block("other", "kept")])
    assert pages.with_blocks(once, {"one": table}) == once
    assert pages.with_blocks(once, {"one": "stale"}) == stale
    assert pages.block_names(stale) == ["one", "other"]


def test_blocks_go_where_their_markers_are(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    readme, deep, bare = (tmp_path / name for name in ("README.md", "docs/deep/speed.md", "docs/bare.md"))
    readme.write_text(block("one"), encoding="utf-8")
    deep.write_text(f"x\n{block('two')}{block('one')}", encoding="utf-8")
    bare.write_text("nothing\n", encoding="utf-8")
    pages.write({"one": "1", "two": "2"})
    assert readme.read_text(encoding="utf-8") == block("one", "1")
    assert deep.read_text(encoding="utf-8") == f"x\n{block('two', '2')}{block('one', '1')}"
    with pytest.raises(ValueError, match="<!-- benchmark: three --> <!-- /benchmark -->"):
        pages.write({"one": "another", "three": "3"})
    assert "another" not in readme.read_text(encoding="utf-8") and bare.read_text(encoding="utf-8") == "nothing\n"


def test_pages_are_what_the_published_results_render():
    blocks = published_blocks()
    texts = [page.read_text(encoding="utf-8") for page in pages.pages()]
    assert [pages.with_blocks(text, blocks) for text in texts] == texts, SAY
    assert sorted(name for text in texts for name in pages.block_names(text)) == sorted(blocks)
    assert published() and not any(results["failures"] for results in published())


def test_pictures_are_what_the_published_results_draw():
    drawn = plots.pictures(published())
    assert {pages.picture(name) for name in drawn} == set(pages.picture("any").parent.glob("*"))
    for name, image in drawn.items():
        assert pages.picture(name).read_text(encoding="utf-8") == image, SAY


def marks(image):
    """Return the places of the marks on the axis, by their titles, and those of the ticks, by their numbers."""
    svg = {"s": "http://www.w3.org/2000/svg"}
    root = ET.fromstring(image)
    places = {}
    for mark in root.iterfind("s:path[@transform]", svg):
        places[mark.find("s:title", svg).text] = float(mark.get("transform")[len("translate(") :].split(",")[0])
    numbers = {
        float(text.text): float(text.get("x"))
        for text in root.iterfind("s:text[@text-anchor='middle']", svg)
        if text.text[0].isdigit()
    }
    return places, numbers


def test_a_mark_stands_at_its_time():
    lines = [plots.Line("a CPU"), plots.Line("1-2 & 3", {"slow": 40.0, "fast": 0.8}), plots.Line("4-5", {"slow": 2.0})]
    image = plots.dot_plot("A <title>", "ours", lines)
    places, ticks = marks(image)
    assert list(ticks) == [0.5, 1, 2, 5, 10, 20, 50]
    assert places["slow: 2.00"] == ticks[2]
    for title, value in (("slow: 40.00", 40), ("fast: 0.80", 0.8)):
        share = math.log(value / 0.5) / math.log(50 / 0.5)
        assert places[title] == pytest.approx(ticks[0.5] + share * (ticks[50] - ticks[0.5]), abs=0.1)
    texts = [element.text for element in ET.fromstring(image).iter("{http://www.w3.org/2000/svg}text")]
    assert {"A <title>", "slow", "fast", "a CPU", "1-2 & 3", "4-5"} <= set(texts)


def test_a_plot_has_every_time_beside_ours():
    results = {
        "machine": {"cpu": "a CPU", "llvm_cpu": "any"},
        "training": [
            {"case": case, "threads": threads, "library": library, "each_s": seconds}
            for threads in (2, 1)
            for case, ours, theirs in (("tab_s", 1e-5, 3e-5), ("wide", 1e-3, 1.5e-3))
            for library, seconds in (("nbdense", ours), ("torch", theirs))
        ],
    }
    (image,) = (plots.PLOTS["training"].draw([results, {"machine": {}}]),)
    places, ticks = marks(image)
    assert set(places) == {"torch eager", "torch eager: 3.00", "torch eager: 1.50"}
    assert image.count(": 3.00</title>") == image.count(": 1.50</title>") == 2
    assert image.count("a CPU (any), 2 threads") == image.count("a CPU (any), 1 thread<") == 1
    assert "784-512-512-10, batch 256" in image and ticks[1] < places["torch eager: 1.50"] < places["torch eager: 3.00"]
