"""The CPUs that the system lets this process use, by affinity and by its control groups' quota, and their caches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SECOND_LEVEL = 1 << 20  # bytes, of CPUs whose caches the system does not tell: what most of them have, or more


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
    second_level : int
        Bytes of the second level of cache that a core has for itself, or its share.
    """

    machine: int
    affinity: int
    quota: float | None
    second_level: int = SECOND_LEVEL

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
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(machine))
    return Cpus(machine, len(mine), _quota(root), _second_level(root / f"sys/devices/system/cpu/cpu{mine[0]}"))


def _second_level(cpu: Path) -> int:
    """Return the bytes of a CPU's second level of cache, divided by the cores that have it in common."""
    for cache in sorted((cpu / "cache").glob("index*")):
        if _text(cache / "level") == "2" and _text(cache / "type") != "Instruction":
            size, unit = _text(cache / "size")[:-1], _text(cache / "size")[-1:]
            if size.isdecimal() and int(size) > 0 and unit in "KM":
                users, siblings = _count(cache / "shared_cpu_list"), _count(cpu / "topology/thread_siblings_list")
                return (int(size) << {"K": 10, "M": 20}[unit]) // max(1, users // siblings)
    return SECOND_LEVEL


def _count(file: Path) -> int:
    """Count the CPUs in a list like "0-3,8"; 1 where there is none."""
    ranges = [part.partition("-") for part in _text(file).split(",")]
    if not all(first.isdecimal() and (last.isdecimal() or not dash) for first, dash, last in ranges):
        return 1
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


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
