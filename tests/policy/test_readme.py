"""Python in the README and in docs/ runs as it stands, each document's in one namespace and an empty folder."""

import re
import runpy

import pytest

from nbdense.commands import cli
from tests.compile.test_instruction_sets import EXPECTED
from tests.support.source_tree import ROOT

README = ROOT / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name)
def test_code_runs(document, tmp_path, monkeypatch):
    text = document.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks or document != README
    # Blank lines in place of the prose: a traceback's line number is the document's own.
    script = ""
    for block in blocks:
        script += "\n" * (text.count("\n", 0, block.start(1)) - script.count("\n")) + block[1]
    path = tmp_path / f"{document.stem}.py"
    path.write_text(script, encoding="utf-8")
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    runpy.run_path(str(path), run_name="__main__")


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


def test_links_lead_somewhere():
    for document in (README, *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document.name, target)


def test_readme_names_the_make_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`?\bmake ([a-z][\w-]+)`?", README.read_text(encoding="utf-8")))
    assert {"demo", "test"} <= named <= targets
