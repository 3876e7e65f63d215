"""Threads: the number that a piece of work gets, and that they are given back."""

import importlib.metadata
import json
import os
import sys
import threading
from pathlib import Path

import numba
import pytest

from nbdense._compile import thread_pool
from nbdense._compile.cpus import Cpus, find_cpus
from tests.support.python_process import HANGS_AFTER, run_python


def read_environment_anew():
    thread_pool._limit_of_process.cache_clear()
    thread_pool._is_set.cache_clear()


@pytest.fixture
def free(monkeypatch):
    """Nothing chosen, four threads to be had, on the omp layer."""
    monkeypatch.setattr(thread_pool, "_chosen", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 4)
    monkeypatch.setattr(thread_pool, "_setting", lambda: 4)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(thread_pool, "cpus", lambda: Cpus(8, 8, None))
    monkeypatch.setattr(thread_pool, "layer", lambda: "omp")
    read_environment_anew()
    yield monkeypatch
    read_environment_anew()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", 1), ("3", 3), ("99", 4), (" 2 ", 2), ("2,8", 2), ("", 4), ("0", 4), ("-1", 4), ("many", 4), ("²", 4)],
)
def test_omp_num_threads(free, value, expected):
    free.setenv("OMP_NUM_THREADS", value)
    assert thread_pool.available() == expected


@pytest.mark.parametrize(("chosen", "expected"), [(1, 1), (3, 3), (99, 4)])
def test_set_num_threads(free, chosen, expected):
    thread_pool.set_num_threads(chosen)
    assert thread_pool.available() == expected
    free.setenv("OMP_NUM_THREADS", "2")
    read_environment_anew()
    assert thread_pool.available() == min(expected, 2)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
def test_set_num_threads_refuses(free, wrong):
    with pytest.raises(ValueError, match="set_num_threads: n must be a whole number of at least 1"):
        thread_pool.set_num_threads(wrong)
    assert thread_pool.available() == 4


CPUS = [(Cpus(8, 8, None), 4), (Cpus(8, 3, None), 3), (Cpus(8, 8, 2.5), 2), (Cpus(8, 2, 7.0), 2), (Cpus(8, 8, 0.4), 1)]


@pytest.mark.parametrize(("cpus", "expected"), CPUS)
def test_threads_start_from_the_cpus_that_may_be_used(free, cpus, expected):
    free.setattr(thread_pool, "cpus", lambda: cpus)
    assert thread_pool.available() == expected
    free.setenv("OMP_NUM_THREADS", "4")  # who asks for threads gets them
    read_environment_anew()
    assert thread_pool.available() == 4
    free.delenv("OMP_NUM_THREADS")
    read_environment_anew()
    thread_pool.set_num_threads(4)
    assert thread_pool.available() == 4


GROUPS = {  # files of a system, and the quota that they make
    "none": ({}, None),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
    "version 2": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "nested": (
        {
            "proc/self/cgroup": "0::/user/job\n",
            "sys/fs/cgroup/user/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/user/job/cpu.max": "max 100000\n",
        },
        2.0,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/box\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        3.0,
    ),
    "nonsense": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "many 0\n"}, None),
}


@pytest.mark.parametrize("case", GROUPS)
def test_quota_of_control_groups(case, tmp_path):
    files, quota = GROUPS[case]
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = find_cpus(tmp_path)
    assert found.quota == quota
    assert 1 <= found.usable <= found.affinity <= found.machine == os.cpu_count()


def cache(level, size, shared="0", kind="Unified"):
    return {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}


FIRST, THIRD = cache("1", "32K", kind="Data"), cache("3", "32768K", "0-15")
CACHES = {  # of a CPU, the CPUs of its core, and what is its second level
    "none": ([], "0", 1 << 20),
    "a core's": ([FIRST, cache("2", "2048K"), THIRD], "0", 1 << 21),
    "with siblings": ([FIRST, cache("2", "1024K", "0,8"), THIRD], "0,8", 1 << 20),
    "of four cores": ([FIRST, cache("2", "2M", "0-3")], "0", 1 << 19),
    "for instructions": ([cache("2", "64K", kind="Instruction"), cache("2", "512K")], "0", 1 << 19),
    "without one": ([FIRST, THIRD], "0", 1 << 20),
    "nonsense": ([cache("2", "much"), cache("2", "0K"), cache("2", "")], "", 1 << 20),
    "no such lists": ([cache("2", "1280K", "all")], "x-", 1280 << 10),
}


@pytest.mark.parametrize("case", CACHES)
def test_second_level_of_cache(case, tmp_path, monkeypatch):
    caches, siblings, expected = CACHES[case]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3}, raising=False)
    folder = tmp_path / "sys/devices/system/cpu/cpu3"
    (folder / "topology").mkdir(parents=True)
    (folder / "topology/thread_siblings_list").write_text(siblings)
    for i, files in enumerate(caches):
        (folder / f"cache/index{i}").mkdir(parents=True)
        for name, text in files.items():
            (folder / f"cache/index{i}/{name}").write_text(text + "\n")
    assert find_cpus(tmp_path).second_level == expected


def test_numbas_own_setting_holds_until_another_is_chosen(free):
    free.setattr(thread_pool, "_setting", lambda: 2)
    assert thread_pool.available() == 2
    thread_pool.set_num_threads(3)
    assert thread_pool.available() == 3


def test_one_in_a_forked_child(free):
    free.setattr(thread_pool, "_home_pid", os.getpid() + 1)
    assert thread_pool.available() == 1
    assert thread_pool.worthwhile(1e15) == 1


def test_one_without_a_layer(free):
    free.setattr(thread_pool, "layer", lambda: None)
    assert thread_pool.available() == 1
    assert thread_pool.worthwhile(1e15) == 1


@pytest.mark.parametrize("layer", thread_pool.PARALLEL_FLOPS)
def test_thresholds_follow_the_layer(free, layer):
    free.setattr(thread_pool, "layer", lambda: layer)
    least = thread_pool.PARALLEL_FLOPS[layer]
    assert thread_pool.worthwhile(least - 1) == 1
    assert thread_pool.worthwhile(least) == 4


def test_workqueue_is_dear():
    assert set(thread_pool.PARALLEL_FLOPS) == {"omp", "tbb", "workqueue"} == set(numba.config.THREADING_LAYER_PRIORITY)
    assert thread_pool.PARALLEL_FLOPS["workqueue"] > 10 * thread_pool.PARALLEL_FLOPS["omp"]


def test_small_work_asks_for_no_thread(free):
    """Not even which layer there is: the question starts numba's threads."""

    def refuse():
        raise AssertionError("asked")

    free.setattr(thread_pool, "layer", refuse)
    free.setattr(thread_pool, "available", refuse)
    assert thread_pool.worthwhile(thread_pool.LEAST_PARALLEL_FLOPS - 1) == 1


@pytest.mark.parametrize(
    ("asked", "omp", "loaded"),
    [
        ("default", True, False),
        ("default", False, True),
        ("threadsafe", False, True),
        ("tbb", True, True),
        ("safe", True, True),
        ("omp", False, False),
        ("workqueue", False, False),
    ],
)
def test_tbb_from_pip_is_loaded_where_numba_needs_it(asked, omp, loaded, monkeypatch, tmp_path):
    """The system's loader does not look into a virtual environment, numba asks no one else."""

    class Package:
        files = (Path("tbb/LICENSE"), Path("../lib/libtbb.so.12"), Path("../lib/libtbbmalloc.so.2"))

        def locate_file(self, file):
            return tmp_path / "site" / file

    found = []
    monkeypatch.setattr(numba.config, "THREADING_LAYER", asked)
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.omppool", sys if omp else None)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Package())
    monkeypatch.setattr(thread_pool.ctypes, "CDLL", lambda path, mode: found.append(path))
    thread_pool._load_tbb()
    assert found == [str(tmp_path / "lib" / "libtbb.so.12")] * loaded


def test_a_tbb_that_does_not_load_is_no_error(monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("libtbb.so.12: cannot open shared object file")

    monkeypatch.setattr(numba.config, "THREADING_LAYER", "tbb")
    monkeypatch.setattr(importlib.metadata, "distribution", refuse)
    thread_pool._load_tbb()


@pytest.fixture
def settings(monkeypatch):
    """numba's number of threads, in place of a pool: a list of all that it was set to."""
    history = [4]
    monkeypatch.setattr(thread_pool, "_setting", lambda: history[-1])
    monkeypatch.setattr(numba, "set_num_threads", history.append)
    return history


def test_a_region_gives_threads_back(settings):
    with thread_pool.region(3) as granted:
        assert granted == 3 == settings[-1]
    assert settings == [4, 3, 4]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_region_gives_threads_back_when_it_is_left_by(error, settings):
    with pytest.raises(error), thread_pool.region(3):
        raise error
    assert settings == [4, 3, 4]
    with thread_pool.region(2) as granted:
        assert granted == 2, "the lock was kept"


def test_a_region_that_numba_refuses_keeps_no_lock(settings, monkeypatch):
    def refuse(n):
        if n == 9:
            raise ValueError("The number of threads must be between 1 and 4")

    monkeypatch.setattr(numba, "set_num_threads", refuse)
    with pytest.raises(ValueError, match="between 1 and 4"), thread_pool.region(9):
        pass
    with thread_pool.region(2) as granted:
        assert granted == 2


def test_one_region_at_a_time(settings):
    """Whoever comes second, from another thread or from within, works alone instead of waiting."""
    found = []

    def other():
        with thread_pool.region(3) as granted:
            found.append(granted)

    with thread_pool.region(3):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(HANGS_AFTER)
        other()
    other()
    assert found == [1, 1, 3]
    assert settings == [4, 3, 4, 3, 4]


def test_serial_work_touches_no_setting(settings):
    with thread_pool.region(1) as granted:
        assert granted == 1
        with thread_pool.region(2) as inner:
            assert inner == 2
    assert settings == [4, 2, 4]


LAYER = """
import json
import numpy as np
import nbdense as nb
from nbdense._compile import thread_pool
from nbdense.backends.cpu import backend
from numba.np.ufunc import parallel

model = nb.Sequential([nb.Input((256,)), nb.Dense(384, "relu"), nb.Dense(256)])
model.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(2000, 256)).astype("float32")
model.predict(x[:4])
model.fit(x[:2], x[:2], verbose=0)
before = parallel._is_initialized
expected = np.concatenate([model.predict(x[i : i + 4]) for i in range(0, 2000, 4)])
assert (model.predict(x) == expected).all()
wide = nb.Sequential([nb.Input((256,)), nb.Dense(1040, "tanh"), nb.Dense(7, "softmax")])
assert wide.network.multiply_adds >= backend.MUCH_TO_READ  # so few rows are shared by columns
assert (wide.predict(x[:3]) == wide.predict(x)[:3]).all()
print(json.dumps([before, thread_pool.layer(), thread_pool.available(), thread_pool.limit()]))
"""


def layer_of(**environment):
    return json.loads(run_python(LAYER, **{"NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2", **environment})[0])


def test_the_layer_that_numba_found():
    """Known without a parallel region; and threads are started by large work only."""
    before, layer, available, limit = layer_of()
    assert not before
    assert layer in thread_pool.PARALLEL_FLOPS
    assert available == limit == 2


def test_the_layer_that_was_asked_for():
    assert layer_of(NUMBA_THREADING_LAYER="workqueue") == [False, "workqueue", 2, 2]


def test_a_layer_that_is_not_there_is_no_error():
    assert layer_of(NUMBA_THREADING_LAYER="nonsense") == [False, None, 1, 2]


def test_one_thread_starts_no_pool():
    script = LAYER.replace("thread_pool.layer()", "parallel._is_initialized")
    assert json.loads(run_python(script, OMP_NUM_THREADS="1")[0]) == [False, False, 1, 1]
