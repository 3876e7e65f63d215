"""The CPUs that the system lets this process use: by affinity, and by the quota of its control groups."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cpus:
    """CPUs of the machine, and how many of them the process may use.

    Attributes
    ----------
    machine : int
    affinity : int
        Those that its threads may run on.
    quota : float or None
        CPUs' time that its control groups grant it; None without a limit.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """Threads that the system runs at the same time, at least 1."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, int(self.quota)))


def find_cpus(root: Path = Path("/")) -> Cpus:
    """Ask the system.

    Parameters
    ----------
    root : Path
        Where its files are.
    """
    machine = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    return Cpus(machine, affinity, _quota(root))


def _quota(root: Path) -> float | None:
    """Return the least quota of the process's control groups and of those above them."""
    quotas = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):
            if controllers == "":  # version 2
                quota, _, period = _text(root / "sys/fs/cgroup" / group / "cpu.max").partition(" ")
                quotas.append(_share(quota, period))
            elif "cpu" in controllers.split(","):
                folder = root / "sys/fs/cgroup/cpu" / group
                quotas.append(_share(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")))
    known = [quota for quota in quotas if quota is not None]
    return min(known, default=None)


def _share(quota: str, period: str) -> float | None:
    try:
        share = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return share if share > 0.0 else None  # -1 is no limit


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""
