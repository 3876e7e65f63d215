"""Pages say what holds: Python runs as it stands, links lead somewhere, commands are there."""

import re
import runpy

import pytest

from nbdense.commands import cli
from tests.compile.test_instruction_sets import EXPECTED
from tests.support.source_tree import ROOT, repository_files

PAGES = {path.relative_to(ROOT).as_posix(): path for path in repository_files() if path.suffix == ".md"}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCES = re.compile(r"^```([^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)
# A page's Python under another name would not be run.
LANGUAGES = {"python", "dockerfile", "{toctree}", "{eval-rst}"}


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if BLOCK.search(text)])
def test_code_runs(name, tmp_path, monkeypatch):
    """Each page's in one namespace and an empty folder."""
    text = TEXTS[name]
    # Blank lines in place of the prose: a traceback's line number is the page's own.
    script = ""
    for block in BLOCK.finditer(text):
        script += "\n" * (text.count("\n", 0, block.start(1)) - script.count("\n")) + block[1]
    path = tmp_path / f"{PAGES[name].stem}.py"
    path.write_text(script, encoding="utf-8")
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    runpy.run_path(str(path), run_name="__main__")


def test_all_code_is_run():
    assert {language for text in TEXTS.values() for language in FENCES.findall(text)} <= LANGUAGES
    assert {"README.md", "docs/first_steps.md"} <= {name for name, text in TEXTS.items() if BLOCK.search(text)}


def test_the_dockerfile_compiles_into_the_image():
    """Its lines are instructions; the cache folder is set before what fills it, in words that the command takes."""
    text = (ROOT / "docs" / "containers.md").read_text(encoding="utf-8")
    first, other = re.findall(r"^```dockerfile\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.split(maxsplit=1) for line in (first + other).splitlines()]
    assert {word for word, _ in lines} == {"FROM", "RUN", "ENV", "COPY", "CMD"} and lines[0][0] == "FROM"
    variables = dict(pair.split("=", 1) for word, rest in lines if word == "ENV" for pair in rest.split())
    assert variables.keys() == {"NBDENSE_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"}
    assert variables["NUMBA_CPU_NAME"] in EXPECTED
    commands = [rest.split() for word, rest in lines if word == "RUN"]
    (warmup,) = (rest for rest in commands if rest[0] == "nbdense")
    command = cli.nbdense.get_command(None, warmup[1])
    assert command.name == "warmup" and command.make_context("warmup", warmup[2:]).params["dtype"] == ("float32",)
    assert first.index("ENV NBDENSE_CACHE_DIR=/") < first.index("RUN nbdense warmup")


def anchors(text):
    """Return what a page's headings are called in links to them."""
    headings = re.findall(r"^#+ (.+)$", FENCES.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for name, text in TEXTS.items():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", FENCES.sub("", text)):
            path = PAGES[name].parent / target if target else PAGES[name]
            assert path.exists(), (name, target)
            assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), (name, target, anchor)


def test_readme_fits_two_screens():
    assert len(TEXTS["README.md"].splitlines()) <= 80


def test_pages_name_make_targets_that_there_are():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name, text in TEXTS.items():
        assert set(re.findall(r"(?:`|^    )make ([a-z][\w-]+)", text, re.MULTILINE)) <= targets, name
    assert {"demo", "test", "docs"} <= set(re.findall(r"make ([a-z][\w-]+)", TEXTS["README.md"]))
