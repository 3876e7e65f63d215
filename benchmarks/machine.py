"""The machine and the versions that figures were taken with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("nbdense", "numba", "llvmlite", "numpy", "scipy", "torch", "jax", "keras", "scikit-learn", "onnxruntime")


def cpu_model() -> str:
    """Return the CPU's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model name")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit that is checked out, marked where the tree differs from it; None outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10", "--exclude", "*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return CPU, cores, system, versions of packages that are installed, date and commit."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    from nbdense._compile import processor

    target = processor.target()
    return {
        "cpu": cpu_model(),
        "llvm_cpu": target.name,
        "vector_bytes": target.vector_bytes,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
    }


def date_of(machine: dict[str, Any]) -> str:
    """Return the date of a measurement, and the commit of what was measured."""
    return f"{machine['date']} at {machine['commit']}" if machine.get("commit") else str(machine["date"])
