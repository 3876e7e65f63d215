"""``nbdense doctor``."""

from __future__ import annotations

import dataclasses

import click

from nbdense.commands.interface.base import Outcome, declare


@declare("doctor", examples=["nbdense doctor", "nbdense doctor --clean"])
@click.option("--clean", is_flag=True, help="Remove other versions' compiled kernels first.")
def command(clean: bool) -> Outcome:
    """Report versions, CPU, threads and compiled kernels, with advice."""
    from nbdense.commands import doctor

    lines, data = [], {}
    if clean:
        folders, size = doctor.clean()
        lines.append(f"removed {folders} folders of other versions, {size / 1e6:.1f} MB")
        data = {"removed": {"folders": folders, "bytes": size}}
    report = doctor.examine()
    lines.append(str(report))
    return Outcome("\n".join(lines), {**data, **dataclasses.asdict(report), "advice": report.advice})
