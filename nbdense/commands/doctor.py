"""``nbdense doctor``: what nbdense finds on this machine, what it costs, and what would be better."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba.core import config

from nbdense import backends
from nbdense._compile import compilations, kernel_cache, policy, processor, thread_pool
from nbdense._compile.cpus import Cpus
from nbdense._compile.pace import Pace

PACKAGES = (
    "nbdense",
    "numba",
    "llvmlite",
    "numpy",
    "onnx",
    "onnxruntime",
    "safetensors",
    "scikit-learn",
    "tbb",
    "numba-cuda",
)
TRIAL_SECONDS = 0.3  # of a run that shows how many threads are used
BUSY_MICROSECONDS = 1000.0  # no idle machine's parallel region takes as long, on any layer


@dataclass(frozen=True)
class Threads:
    """Threads of this process, and the layer that starts them.

    Attributes
    ----------
    limit : int
        The most threads that settings and CPUs allow.
    layer : str or None
        Numba's threading layer: "omp", "tbb" or "workqueue"; None if the one asked for cannot be loaded.
    asked_for : str
        NUMBA_THREADING_LAYER, "default" if it is not set.
    region_microseconds : float or None
        What a parallel region costs, measured; None where there is nothing to measure.
    cpus : Cpus
        Those of the machine, and those that the process may use.
    used : int or None
        Threads that a run has come to, measured: fewer than ``limit`` where the system does not run them all.
    """

    limit: int
    layer: str | None
    asked_for: str
    region_microseconds: float | None
    cpus: Cpus
    used: int | None


@dataclass(frozen=True)
class Cache:
    """The folder of compiled kernels, and its contents.

    Attributes
    ----------
    folder : Path or None
        This version's folder; None where there is no home folder to put it in.
    writable : bool
        Whether kernels can be added.
    kernels, size : int
        Files in the folder, and their bytes.
    others : tuple of Path
        Folders of other versions.
    others_size : int
        Their bytes.
    """

    folder: Path | None
    writable: bool
    kernels: int
    size: int
    others: tuple[Path, ...]
    others_size: int


@dataclass(frozen=True)
class Report:
    """Findings of `examine`.

    Attributes
    ----------
    versions : dict of str to (str or None)
        Python's and the packages'; None for one that is not installed.
    platform : str
        System and machine.
    cpu : nbdense._compile.processor.Target
        The CPU that kernels are compiled for.
    gpu : str
        The GPU that ``set_device("cuda")`` takes, or why there is none.
    jit : bool
        Whether kernels are compiled at all.
    threads : Threads
    cache : Cache
    """

    versions: dict[str, str | None]
    platform: str
    cpu: processor.Target
    gpu: str
    jit: bool
    threads: Threads
    cache: Cache

    @property
    def advice(self) -> list[str]:
        """Suggestions, a line each; empty if all is well."""
        lines = []
        threads, cache = self.threads, self.cache
        if not self.jit:
            lines.append("NUMBA_DISABLE_JIT is set: kernels run in plain Python, thousands of times slower. Unset it.")
        if threads.limit < 2:
            pass  # no layer is used
        elif threads.layer is None:
            lines.append(
                f"NUMBA_THREADING_LAYER={threads.asked_for} cannot be loaded: everything runs on one thread. Unset it, "
                "or install that layer's library (pip install 'nbdense[tbb]' brings tbb's)."
            )
        elif threads.layer == "workqueue" and threads.asked_for == "workqueue":
            lines.append("NUMBA_THREADING_LAYER=workqueue is numba's slowest layer: unset it, unless you need it.")
        elif threads.layer == "workqueue":
            system = "libgomp (Debian: apt install libgomp1)" if sys.platform == "linux" else "an OpenMP library"
            lines.append(
                "Only numba's slowest threading layer, workqueue, was found: less work is worth two threads. Install "
                f"{system}, or pip install 'nbdense[tbb]'."
            )
        if threads.region_microseconds is not None and threads.region_microseconds > BUSY_MICROSECONDS:
            lines.append(
                f"A parallel region takes {threads.region_microseconds:.0f} us now: its threads wait for CPUs that "
                "other processes keep busy. Meanwhile runs go on with fewer; OMP_NUM_THREADS=1 spares them the trying."
            )
        if cache.folder is None:
            lines.append("There is no home folder to keep compiled kernels in: set NBDENSE_CACHE_DIR to a folder.")
        elif not cache.writable:
            lines.append(
                "The cache folder cannot be written, so each process compiles what is not in it: set NBDENSE_CACHE_DIR "
                "to a folder that can be, or run `nbdense warmup` as a user who may write it."
            )
        elif self.jit and not cache.kernels:
            lines.append("Nothing is compiled yet: `nbdense warmup` does it ahead of time.")
        if cache.others:
            lines.append(
                f"{len(cache.others)} cache folders of other versions take {_megabytes(cache.others_size)}: "
                "`nbdense doctor --clean` removes them."
            )
        return lines

    def __str__(self) -> str:
        threads, cache = self.threads, self.cache
        cost = threads.region_microseconds
        layer = f"{threads.layer or 'no'} threading layer" if threads.limit > 1 else "no threading layer needed"
        layer += "" if cost is None else f", {cost:.1f} us a parallel region"
        if threads.used is not None:
            layer += f"; a run of {TRIAL_SECONDS} s used {'all' if threads.used == threads.limit else threads.used}"
        access = "writable" if cache.writable else "not writable"
        rows = [
            ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items() if version)),
            ("missing", ", ".join(name for name, version in self.versions.items() if not version) or "nothing"),
            ("platform", self.platform),
            ("cpu", f"{self.cpu.name}, {8 * self.cpu.vector_bytes}-bit vectors, {'' if self.cpu.fma else 'no '}FMA"),
            ("gpu", self.gpu),
            ("cpus", _cpus_text(threads.cpus)),
            ("threads", f"{threads.limit}, {layer}"),
            ("cache", f"{cache.folder or 'none'} ({access}), {cache.kernels} kernels, {_megabytes(cache.size)}"),
            *(("advice", line) for line in self.advice or ["nothing to improve"]),
        ]
        return "\n".join(f"{name:<10}{text}" for name, text in rows)


def examine() -> Report:
    """Look at the machine. Starts numba's threads and compiles one small function; writes nothing else.

    Returns
    -------
    Report

    Examples
    --------
    >>> from nbdense.commands import doctor
    >>> doctor.examine().versions["numba"] is not None
    True
    """
    compilations.announce_nothing()
    versions: dict[str, str | None] = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return Report(
        versions=versions,
        platform=f"{platform.system()} {platform.machine()}",
        cpu=processor.target(),
        gpu=backends.gpu(),
        jit=policy.JIT,
        threads=_threads_found(),
        cache=_cache_found(),
    )


def clean() -> tuple[int, int]:
    """Remove other versions' cache folders, and what interrupted processes left unfinished in this version's.

    Returns
    -------
    folders, size : int
        How many were removed, and the bytes of all that was.
    """
    folder = kernel_cache.cache_folder()
    unfinished = [] if folder is None else [file for file in kernel_cache.kernel_files(folder) if file.suffix == ".tmp"]
    others = kernel_cache.other_folders()
    size = _size(unfinished)
    for file in unfinished:
        with suppress(OSError):  # another process has finished it
            file.unlink()
    removed = 0
    for other in others:
        size_before = _size(kernel_cache.kernel_files(other))
        kernel_cache.remove_folder(other)
        if not other.exists():
            removed, size = removed + 1, size + size_before
    return removed, size


def _threads_found() -> Threads:
    limit = thread_pool.limit()
    layer = thread_pool.layer() if limit > 1 else None
    cost, used = None, None
    if layer is not None and policy.JIT:
        cost, used = _region_microseconds(limit), _threads_used(limit)
    return Threads(limit, layer, str(config.THREADING_LAYER), cost, thread_pool.cpus(), used)


def _cpus_text(cpus: Cpus) -> str:
    text = str(cpus.machine)
    if cpus.affinity < cpus.machine:
        text += f", of which {cpus.affinity} by affinity"
    return text if cpus.quota is None else f"{text}, a quota of {cpus.quota:g}"


@policy.kernel
def _next_to_nothing(out, thread):  # type: ignore[no-untyped-def]  # compiled
    out[thread] += 1


_run_region = policy.region(_next_to_nothing)


@policy.entry
def _run_regions(launcher, count, out):  # type: ignore[no-untyped-def]  # compiled
    for _ in range(count):
        _run_region(launcher, out.size, out)


def _region_microseconds(threads: int) -> float:
    """Measure a parallel region that does next to nothing: the median over batches of them."""
    out, launcher = np.zeros(threads, np.int64), thread_pool.launcher(threads)
    count, costs = 20, []
    with thread_pool.region(threads):
        _run_regions(launcher, count, out)
        for _ in range(25):
            started = time.perf_counter()
            _run_regions(launcher, count, out)
            costs.append((time.perf_counter() - started) / count)
    return float(np.median(costs)) * 1e6


def _threads_used(threads: int) -> int:
    """Return the threads that a short run of parallel regions has come to."""
    pace, count = Pace(), 20
    end = time.perf_counter() + TRIAL_SECONDS
    while time.perf_counter() < end:
        with pace.region(math.inf, float(count)) as granted:
            _run_regions(thread_pool.launcher(granted), count, np.zeros(granted, np.int64))
    return pace.fewest or threads


def _cache_found() -> Cache:
    folder, others = kernel_cache.cache_folder(), tuple(kernel_cache.other_folders())
    files = [] if folder is None else kernel_cache.kernel_files(folder)
    others_size = sum(_size(kernel_cache.kernel_files(other)) for other in others)
    access = folder is not None and kernel_cache.writable(folder)
    return Cache(folder, access, sum(file.suffix != ".tmp" for file in files), _size(files), others, others_size)


def _size(files: list[Path]) -> int:
    total = 0
    for file in files:
        with suppress(OSError):  # removed meanwhile
            total += file.stat().st_size
    return total


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
