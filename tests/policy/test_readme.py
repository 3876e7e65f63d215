"""Python in the README and in docs/ runs as it stands, each document's in one namespace and an empty folder."""

import re
import runpy

import pytest

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


def test_links_lead_somewhere():
    for document in (README, *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document.name, target)


def test_readme_names_the_make_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`?\bmake ([a-z][\w-]+)`?", README.read_text(encoding="utf-8")))
    assert {"demo", "test"} <= named <= targets
