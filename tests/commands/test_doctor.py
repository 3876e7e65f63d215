"""`nbdense doctor`: on the data, for machines that are not at hand too."""

import dataclasses
import importlib.metadata
from pathlib import Path

import pytest

from nbdense._compile import kernel_cache, processor, thread_pool
from nbdense._compile.cpus import Cpus
from nbdense.commands import cli, doctor


@pytest.fixture
def healthy():
    """A report of a machine where all is well."""
    return doctor.Report(
        versions={"Python": "3.11.7", "nbdense": "0.1.0", "onnxruntime": None},
        platform="Linux x86_64",
        cpu=processor.Target("znver4", 64, True),
        gpu="none",
        jit=True,
        threads=doctor.Threads(8, "omp", "default", region_microseconds=2.04, cpus=Cpus(8, 8, None), used=8),
        cache=doctor.Cache(Path("kernels"), writable=True, kernels=6, size=2_340_000, others=(), others_size=0),
    )


def changed(report, part=None, **changes):
    if part is None:
        return dataclasses.replace(report, **changes)
    return dataclasses.replace(report, **{part: dataclasses.replace(getattr(report, part), **changes)})


def test_a_healthy_machine(healthy):
    assert healthy.advice == []
    lines = str(healthy).splitlines()
    assert [line.split()[0] for line in lines] == [
        "versions",
        "missing",
        "platform",
        "cpu",
        "gpu",
        "cpus",
        "threads",
        "cache",
        "advice",
    ]
    text = " ".join(str(healthy).split())
    assert "Python 3.11.7, nbdense 0.1.0" in text
    assert "missing onnxruntime" in text
    assert "znver4, 512-bit vectors, FMA" in text
    assert "cpus 8 threads 8, omp threading layer, 2.0 us a parallel region; a run of 0.3 s used all cache" in text
    assert "kernels (writable), 6 kernels, 2.3 MB" in text
    assert "advice nothing to improve" in text


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        (None, {"jit": False}, ["NUMBA_DISABLE_JIT"]),
        ("threads", {"layer": "workqueue"}, ["workqueue", "pip install 'nbdense[tbb]'"]),
        ("threads", {"layer": "workqueue", "asked_for": "workqueue"}, ["NUMBA_THREADING_LAYER=workqueue", "unset it"]),
        ("threads", {"layer": None, "asked_for": "tbb"}, ["NUMBA_THREADING_LAYER=tbb cannot be loaded", "one thread"]),
        ("threads", {"region_microseconds": 8000.0}, ["8000 us", "OMP_NUM_THREADS=1"]),
        ("cache", {"writable": False}, ["cannot be written", "NBDENSE_CACHE_DIR"]),
        ("cache", {"folder": None, "writable": False}, ["no home folder", "NBDENSE_CACHE_DIR"]),
        ("cache", {"kernels": 0}, ["nbdense warmup"]),
        ("cache", {"others": (Path("a"), Path("b")), "others_size": 7_000_000}, ["2 cache folders", "7.0 MB"]),
    ],
)
def test_advice(healthy, part, changes, words):
    report = changed(healthy, part, **changes)
    (line,) = report.advice
    assert "\n" not in line
    assert all(word in line for word in words), line
    assert line in str(report)


def test_advice_names_libgomp_on_linux_only(healthy, monkeypatch):
    report = changed(healthy, "threads", layer="workqueue")
    for platform, named in (("linux", True), ("darwin", False), ("win32", False)):
        monkeypatch.setattr(doctor.sys, "platform", platform)
        assert ("libgomp" in report.advice[0]) == named


@pytest.mark.parametrize(
    ("cpus", "text"),
    [
        (Cpus(8, 2, None), "8, of which 2 by affinity"),
        (Cpus(8, 8, 1.5), "8, a quota of 1.5"),
        (Cpus(64, 4, 3.0), "64, of which 4 by affinity, a quota of 3"),
    ],
)
def test_what_bounds_the_threads(healthy, cpus, text):
    assert f"cpus      {text}\n" in str(changed(healthy, "threads", cpus=cpus))


def test_threads_that_the_system_does_not_run(healthy):
    assert "a run of 0.3 s used 7\n" in str(changed(healthy, "threads", used=7))


def test_one_cpu_needs_no_layer(healthy):
    report = changed(healthy, "threads", limit=1, layer=None, region_microseconds=None, used=None)
    assert report.advice == []
    assert "no threading layer needed" in str(report)


def test_this_machine(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    report = doctor.examine()
    for name in ("nbdense", "numba", "llvmlite", "numpy", "onnx"):
        assert report.versions[name] == importlib.metadata.version(name)
    assert set(report.versions) == {"Python", *doctor.PACKAGES}
    assert report.cpu == processor.target()
    assert report.jit
    assert report.threads.limit == thread_pool.limit()
    if report.threads.limit > 1:
        assert report.threads.layer in thread_pool.PARALLEL_FLOPS
        assert report.threads.region_microseconds > 0
    else:
        assert report.threads.layer is report.threads.region_microseconds is None
    assert report.cache.folder == kernel_cache.cache_folder()
    assert report.cache.writable
    assert report.cache.kernels > 0 or report.threads.limit == 1
    assert f"numba {report.versions['numba']}" in str(report)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "0123456789abcdef"
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: folder)
    for path in (folder, tmp_path / ("a" * 16), tmp_path / ("b" * 16), tmp_path / "other", tmp_path / ("c" * 16)):
        path.mkdir()
        (path / "predict-serial-1.nbk").write_bytes(bytes(100))
        (path / f"{'0' * 32}.tmp").write_bytes(bytes(10))
    (tmp_path / ("c" * 16) / "mine.txt").touch()
    return folder


def test_what_the_cache_holds(cache):
    found = doctor._cache_found()
    assert (found.folder, found.writable, found.kernels, found.size) == (cache, True, 1, 110)
    assert {path.name for path in found.others} == {"a" * 16, "b" * 16}
    assert found.others_size == 220


def test_a_cache_that_is_not_there_yet(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: tmp_path / "not" / "yet")
    assert doctor._cache_found() == doctor.Cache(tmp_path / "not" / "yet", True, 0, 0, (), 0)
    assert not list(tmp_path.iterdir()), "looking made a folder"


def test_no_cache(monkeypatch):
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: None)
    assert doctor._cache_found() == doctor.Cache(None, False, 0, 0, (), 0)
    assert doctor.clean() == (0, 0)


def test_clean_removes_what_is_surely_ours(cache, tmp_path):
    assert doctor.clean() == (2, 230)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([cache.name, "other", "c" * 16])
    assert [file.name for file in cache.iterdir()] == ["predict-serial-1.nbk"]
    assert len(list((tmp_path / "other").iterdir())) == 2
    assert doctor.clean() == (0, 0)


def test_clean_leaves_what_a_link_points_to(cache, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "predict-serial-1.nbk").touch()
    (tmp_path / ("d" * 16)).symlink_to(elsewhere, target_is_directory=True)
    doctor.clean()
    assert (elsewhere / "predict-serial-1.nbk").exists()
    assert (tmp_path / ("d" * 16)).is_symlink()


def test_the_command(healthy, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: healthy)
    monkeypatch.setattr(doctor, "clean", lambda: (3, 12_300_000))
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == f"{healthy}\n"
    assert cli.main(["doctor", "--clean"]) == 0
    assert capsys.readouterr().out == f"removed 3 folders of other versions, 12.3 MB\n{healthy}\n"
