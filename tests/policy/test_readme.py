"""The README's Python runs as it stands, from top to bottom, in one namespace and an empty folder."""

import re
import runpy

from tests.support.source_tree import ROOT

README = ROOT / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_readme_code_runs(tmp_path, monkeypatch):
    text = README.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    # Blank lines in place of the prose: a traceback's line number is the README's own.
    script = ""
    for block in blocks:
        script += "\n" * (text.count("\n", 0, block.start(1)) - script.count("\n")) + block[1]
    path = tmp_path / "README.py"
    path.write_text(script, encoding="utf-8")
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    runpy.run_path(str(path), run_name="__main__")


def test_readme_names_the_make_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`?\bmake ([a-z][\w-]+)`?", README.read_text(encoding="utf-8")))
    assert {"demo", "test"} <= named <= targets
