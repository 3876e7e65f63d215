"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine, mnist, report
from benchmarks.cases import CASES, SMALLEST
from benchmarks.measure import PARTS, Settings, check_machine, merged, run
from benchmarks.peers import PEERS
from benchmarks.publishing import pages, plots

RESULTS = Path(__file__).parent / "results"  # a file for each kind of CPU: what the pages' tables are made from
OTHERS = ("edge", "estimators", "quantization", "sparsity")  # of other benchmarks


def published() -> list[dict[str, Any]]:
    """Return the published results of each kind of CPU, by its name."""
    files = sorted(file for file in RESULTS.glob("*.json") if file.stem not in OTHERS)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def write_pages() -> None:
    """Write the tables of all published results into the pages that have their markers, and draw the plots."""
    pages.write(report.blocks(published()))
    pages.draw(plots.pictures(published()))


def _names(known: dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="nbdense beside its peers, checked and timed.")
    parser.add_argument("--cases", type=_names(CASES), help=f"of {','.join(CASES)}; default: all")
    parser.add_argument("--libraries", type=_names(PEERS), help=f"of {','.join(PEERS)}; default: all installed")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], help="default: 2 1")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each library a case; default: 7")
    parser.add_argument("--quick", action="store_true", help="the smallest case, two short rounds: does it work?")
    parser.add_argument(
        "--only",
        metavar="PARTS",
        type=_names(dict.fromkeys(PARTS)),
        help=f"of {','.join(PARTS)}; default: all. These are put into the results that the file holds",
    )
    parser.add_argument(
        "--data", metavar="DIR", type=mnist.folder, help="MNIST's four idx .gz files; adds time to accuracy"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="where results go")
    parser.add_argument("--from", metavar="FILE", type=Path, dest="source", help="take results from here: no run")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="put the results into benchmarks/results, under this kind of CPU's name, and the tables into the pages",
    )
    parser.add_argument("--pages", action="store_true", help="write the pages' tables and plots anew: no run")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    libraries = tuple(name for name in options.libraries or PEERS if PEERS[name].installed)
    if left_out := [name for name in options.libraries or PEERS if name not in libraries]:
        print(f"not installed, left out: {', '.join(left_out)}", file=sys.stderr)
    parts = tuple(options.only or PARTS)
    if options.quick:
        names = tuple(options.cases or [SMALLEST])
        parts = tuple(part for part in parts if part != "start")
        return Settings(names, libraries, (max(options.threads),), 2, 0.02, 0.02, parts, options.data)
    names = tuple(options.cases or CASES)
    return Settings(names, libraries, tuple(options.threads), options.rounds, parts=parts, data=options.data)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return 1 if a library failed its check and could not be timed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.pages:
        write_pages()
        return 0
    if options.publish:
        if options.quick or options.source or options.json:
            parser.error("--publish is for whole measurements: leave out --quick, --from and --json")
        options.json = RESULTS / f"{machine.describe()['llvm_cpu']}.json"
    before = None
    if options.only and options.json and options.json.exists():
        before = json.loads(options.json.read_text(encoding="utf-8"))
        try:
            check_machine(before)
        except ValueError as error:
            parser.error(f"--only: {options.json} was {error}: measure everything")
    if options.source:
        results = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        # An empty cache: what nbdense compiles is measured, as the others' compilation is.
        with tempfile.TemporaryDirectory(prefix="nbdense-bench-") as cache:
            if not options.quick:
                os.environ["NBDENSE_CACHE_DIR"] = cache
            results = run(_settings(options))
        if before is not None:
            results = merged(before, results, tuple(options.only))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.publish:
        write_pages()
    for render in report.RENDERERS.values():
        print(render(results), end="\n\n")
    print(report.verdicts(results))
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
