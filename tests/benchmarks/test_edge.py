"""The benchmark of C for microcontrollers: its table. What it measures with is tried by the tests of `to_c`."""

import json

import pytest

from benchmarks.edge.run import main
from benchmarks.publishing import pages

ROW = {
    "network": "20-64-64-2",
    "target": "cortex-m4f",
    "peer": "emlearn",
    "text": 1208,
    "constants": 22_596,
    "ram": 668,
    "instructions": 42_282,
    "multiply_adds": 5504,
}
RESULTS = {"machine": {"date": "2026-11-27", "versions": {"nbdense": "0.1.0", "ziglang": "0.17.1"}}, "rows": [ROW]}


def test_command_line(tmp_path, capsys, monkeypatch):
    path, page, copy = tmp_path / "results.json", tmp_path / "README.md", tmp_path / "new" / "copy.json"
    path.write_text(json.dumps(RESULTS), encoding="utf-8")
    page.write_text("# x\n\n<!-- benchmark: edge -->\n<!-- /benchmark -->\n\nmore\n", encoding="utf-8")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert main(["--from", str(path), "--json", str(copy), "--pages"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "| 20-64-64-2 | M4 with FPU | emlearn | 1,208 | 22,596 | 668 | 42,282 | 7.68 |\n" in text
    assert "Measured 2026-11-27 by `make bench-edge`; nbdense 0.1.0, ziglang 0.17.1.\n<!-- /benchmark -->" in text
    assert capsys.readouterr().out.strip() in text
    assert json.loads(copy.read_text(encoding="utf-8")) == RESULTS
    with pytest.raises(SystemExit):
        main(["--from", str(path), "--option=-O2", "--pages"])
    assert "leave out --option" in capsys.readouterr().err
