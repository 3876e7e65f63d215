"""The cache of compiled kernels, with entries that compile in a moment, and the line that announces compiling."""

import ast
import hashlib
import io
import os
import re
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nbdense._compile import compilations, kernel_cache, policy
from tests.support.python_process import HANGS_AFTER
from tests.support.source_tree import library_modules


def _doubled(x, out):
    for i in range(x.size):
        out[i] = 2 * x[i]


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty cache folder of the test's own, which entries made from now on use."""
    folder = tmp_path / "root" / "0123456789abcdef"
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: folder)
    monkeypatch.setattr(kernel_cache, "save_error", None)
    monkeypatch.setattr(compilations, "_announced", True)
    return folder


def run_doubled(dtype="float32"):
    """Make the entry anew and call it; returns how many times it was compiled."""
    before = len(compilations.compilations)
    doubled = policy.entry(_doubled)
    x = np.arange(5, dtype=dtype)
    out = np.zeros_like(x)
    doubled(x, out)
    np.testing.assert_array_equal(out, [0, 2, 4, 6, 8])
    assert sum(doubled.stats.cache_misses.values()) == len(compilations.compilations) - before
    return len(compilations.compilations) - before


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_compiled_once_a_signature(folder):
    assert [run_doubled(), run_doubled()] == [1, 0]
    assert [run_doubled("float64"), run_doubled("float64"), run_doubled()] == [1, 0, 0]
    assert len(names(folder)) == 2
    assert all(re.fullmatch(r"doubled-[0-9a-f]{24}\.nbk", name) for name in names(folder))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:],  # one bit of the machine code
        lambda content: bytes(len(content)),
        lambda content: b"\x80\x04garbage" * 100,
    ],
    ids=["empty", "digest cut", "end cut", "half", "one bit", "zeros", "garbage"],
)
def test_damaged_files_are_replaced_silently(folder, damage, capfd):
    run_doubled()
    (file,) = folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert run_doubled() == 1
    content = file.read_bytes()
    assert names(folder) == [file.name] and content[:32] == hashlib.sha256(content[32:]).digest()
    assert run_doubled() == 0
    assert capfd.readouterr() == ("", "")


def test_a_whole_file_that_numba_does_not_take(folder):
    """As after a change of numba's that kept its version: the digest is right, the content is not."""
    run_doubled()
    (file,) = folder.iterdir()
    for content in (b"not a pickle", b"\x80\x04N."):  # the second is a pickled None
        file.write_bytes(hashlib.sha256(content).digest() + content)
        assert [run_doubled(), run_doubled()] == [1, 0]


def test_a_folder_in_place_of_a_file(folder):
    run_doubled()
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    assert run_doubled() == 1
    assert isinstance(kernel_cache.save_error, OSError)
    assert names(folder) == [file.name]


def test_a_full_disk(folder, monkeypatch):
    """Half a file is written, then there is no space left: nothing of it stays, and the work gets done."""
    write = Path.write_bytes

    def write_half(self, content):
        write(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    assert [run_doubled(), run_doubled()] == [1, 1]
    assert names(folder) == []
    assert kernel_cache.save_error.errno == 28
    monkeypatch.undo()


def test_a_folder_that_can_only_be_read(folder, monkeypatch):
    """As in a container whose image was warmed up by another user: what is there is used."""
    run_doubled()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    before = names(folder)
    for name in ("mkdir", "write_bytes", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    assert run_doubled() == 0
    assert run_doubled("float64") == 1
    assert names(folder) == before


def test_a_cache_folder_that_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: tmp_path / "file" / "0123456789abcdef")
    assert [run_doubled(), run_doubled()] == [1, 1]
    assert not kernel_cache.writable(tmp_path / "file" / "0123456789abcdef")
    assert (tmp_path / "file").read_text() == "mine"


def test_no_home(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("NBDENSE_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert kernel_cache.cache_root.__wrapped__() is None
    monkeypatch.setattr(kernel_cache, "cache_root", lambda: None)
    assert kernel_cache.cache_folder.__wrapped__() is None
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: None)
    assert [run_doubled(), run_doubled()] == [1, 1]
    assert kernel_cache.other_folders() == []


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "home/.cache/nbdense"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/nbdense"),
        ("darwin", {}, "home/Library/Caches/nbdense"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/nbdense/cache"),
        ("win32", {}, "home/nbdense/cache"),
        ("linux", {"NBDENSE_CACHE_DIR": "chosen"}, "chosen"),
    ],
)
def test_where_the_cache_is(platform, environment, expected, monkeypatch, tmp_path):
    for name in ("NBDENSE_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert kernel_cache.cache_root.__wrapped__() == tmp_path / expected


def test_a_relative_folder_is_taken_from_where_the_process_started(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBDENSE_CACHE_DIR", "here")
    assert kernel_cache.cache_root.__wrapped__() == tmp_path / "here"


def test_a_new_folder_for_other_sources_and_versions(monkeypatch, tmp_path):
    source = tmp_path / "kernel.py"
    source.write_text("1")
    monkeypatch.setattr(kernel_cache, "compiled_sources", lambda: [source])
    folder = kernel_cache.cache_folder.__wrapped__
    found = [folder()]
    source.write_text("2")
    found.append(folder())
    for module in (kernel_cache.numba, kernel_cache.llvmlite):
        monkeypatch.setattr(module, "__version__", "999.0")
        found.append(folder())
    monkeypatch.setattr(kernel_cache.config, "OPT", 0)
    found.append(folder())
    assert len(set(found)) == len(found)
    assert {path.parent for path in found} == {kernel_cache.cache_root()}


COMPILING = {"kernel", "entry", "unit", "region", "region_of", "intrinsic", "by_dtype", "switch"}


def test_every_module_with_compiled_code_is_in_the_folder_name():
    """A module that imports a decorator of the compile policy makes compiled code."""
    hashed = {path.resolve() for path in kernel_cache.compiled_sources()}
    missing = [
        module
        for module, path in library_modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and node.module == "nbdense._compile.policy"
        and Path(find_spec(module).origin).resolve() not in hashed
        if {"kernel", "entry", "unit", "region", "region_of", "intrinsic", "by_dtype", "switch"}
        & {name.name for name in node.names}
    ]
    assert not missing


def test_old_folders_do_not_pile_up(folder, monkeypatch):
    """A new version's folder drives out old ones, and the oldest where there are too many bytes; no one else's."""
    monkeypatch.setattr(kernel_cache, "BYTES_KEPT", 6)
    root = folder.parent
    for age in range(5):
        old = root / f"{age:016x}"
        old.mkdir(parents=True)
        (old / "predict-0.nbk").write_bytes(b"xx")
        (old / "left.tmp").write_bytes(b"x")
        used = time.time() - age
        os.utime(old, (used, used))
    forgotten = root / f"{9:016x}"
    forgotten.mkdir()
    os.utime(forgotten, (time.time() - 100 * 86400,) * 2)
    for foreign in ("notes", "f" * 16):
        (root / foreign).mkdir()
        (root / foreign / "thesis.txt").write_text("mine")
    (root / ("e" * 16)).write_text("a file")
    assert run_doubled() == 1
    assert names(root) == sorted([f"{0:016x}", f"{1:016x}", folder.name, "notes", "f" * 16, "e" * 16])
    assert [other.name for other in kernel_cache.other_folders()] == [f"{0:016x}", f"{1:016x}"]
    assert run_doubled("float64") == 1  # into the folder that is there: nothing is looked for again
    assert len(names(folder)) == 2


CONCURRENT = """
import sys
import numpy as np
from nbdense._compile import kernel_cache, compilations, policy

def _tripled(x, out):
    for i in range(x.size):
        out[i] = 3 * x[i]

tripled = policy.entry(_tripled)
sys.stdin.readline()
for dtype in sys.argv[1:]:
    out = np.zeros(3, dtype)
    tripled(np.arange(3, dtype=dtype), out)
    assert out.tolist() == [0, 3, 6], out
print(len(compilations.compilations))
"""


def test_processes_that_compile_at_once(tmp_path):
    """In different orders: none gets another's code, and the next one finds everything."""
    script = tmp_path / "script.py"
    script.write_text(CONCURRENT)
    environment = {**os.environ, "NBDENSE_CACHE_DIR": str(tmp_path / "cache")}
    dtypes = ["float32", "float64", "int32", "int64"]
    processes = [
        subprocess.Popen(
            [sys.executable, script, *dtypes[i:], *dtypes[:i]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(4)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=HANGS_AFTER)
        assert process.returncode == 0
    (folder,) = (tmp_path / "cache").iterdir()
    assert len(names(folder)) == 4 and {Path(name).suffix for name in names(folder)} == {".nbk"}
    again = subprocess.run(
        [sys.executable, script, *dtypes],
        input="go\n",
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=HANGS_AFTER,
    )
    assert (again.stdout, again.stderr) == ("0\n", "")


WITH_A_UNIT = """
import sys
import numpy as np
from nbdense._compile import compilations, policy

def triple(x, out):
    for i in range(x.size):
        out[i] = 3 * x[i]

triple = policy.unit(triple)

def _twice(x, out):
    triple(x, out)
    triple(out, out)

out = np.zeros(3)
policy.entry(_twice)(np.arange(3.0), out)
of_compilers = {"numba.np.arrayobj", "scipy.linalg"} & set(sys.modules)  # what they take a quarter of a second to load
print(out.tolist(), len(compilations.compilations), sorted(of_compilers))
"""


@pytest.mark.parametrize(("lost", "compiled"), [("", 0), ("triple", 1), ("twice", 1)])
def test_units_that_are_kept_and_lost(lost, compiled, tmp_path):
    """A unit may be loaded while what calls it is compiled, and the other way round."""
    script = tmp_path / "script.py"
    script.write_text(WITH_A_UNIT)

    def run():
        environment = {**os.environ, "NBDENSE_CACHE_DIR": str(tmp_path / "cache")}
        return subprocess.check_output([sys.executable, script], text=True, env=environment, timeout=HANGS_AFTER)

    compiling = "['numba.np.arrayobj']"  # and no SciPy for products that nothing has
    assert run() == f"[0.0, 9.0, 18.0] 2 {compiling}\n"
    if lost:
        (file,) = tmp_path.glob(f"cache/*/{lost}-*.nbk")
        file.unlink()
    assert run() == f"[0.0, 9.0, 18.0] {compiled} {compiling if compiled else []}\n"


@pytest.fixture
def silent_so_far(monkeypatch):
    for flag in ("_announced", "_silent"):
        monkeypatch.setattr(compilations, flag, False)
    monkeypatch.setattr(compilations, "compilations", [])


def test_short_compilations_are_not_announced(folder, silent_so_far, monkeypatch, capfd):
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 1e6)
    run_doubled()
    assert capfd.readouterr() == ("", "")


def test_long_compilations_are_announced_while_they_run(silent_so_far, monkeypatch):
    said = threading.Event()
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 0.01)
    monkeypatch.setattr(compilations, "_announce", said.set)
    with compilations.timed("run_steps"):
        assert said.wait(HANGS_AFTER)


def test_many_short_compilations_are_announced_once(folder, silent_so_far, monkeypatch, capfd):
    """Their times add up."""
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 100.0)
    compilations.compilations.append(compilations.Compilation("run_steps", 101.0))
    run_doubled()
    run_doubled("float64")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == err.count("compiling kernels") == 1
    assert "`nbdense warmup`" in err


@pytest.mark.parametrize("place", ["a file", "no home"])
def test_without_a_cache_the_line_says_what_to_do(place, silent_so_far, monkeypatch, tmp_path, capfd):
    (tmp_path / "file").touch()
    folder = None if place == "no home" else tmp_path / "file" / "0123456789abcdef"
    monkeypatch.setattr(kernel_cache, "cache_folder", lambda: folder)
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 0.0)
    run_doubled()
    run_doubled()
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "in every process" in err and "NBDENSE_CACHE_DIR" in err


def test_no_stderr(folder, silent_so_far, monkeypatch):
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", None)
    assert run_doubled() == 1


def test_no_thread_for_the_clock(folder, silent_so_far, monkeypatch, capfd):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    assert run_doubled() == 1
    assert "compiling kernels" in capfd.readouterr().err


def test_loading_is_not_announced(folder, silent_so_far, monkeypatch, capfd):
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 1e6)
    run_doubled()
    monkeypatch.setattr(compilations, "ANNOUNCE_SECONDS", 0.0)
    assert run_doubled() == 0
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    """A stderr that says that it is a terminal."""

    def isatty(self):
        return True

    def shown(self):
        """Return the lines that are seen: a backspace steps back, and what follows overwrites."""
        lines = []
        for text in self.getvalue().split("\n"):
            seen, at = [], 0
            for character in text:
                if character == "\b":
                    at -= 1
                    continue
                seen[at : at + 1] = [character]
                at += 1
            lines.append("".join(seen).rstrip())
        return lines


def terminal_of(monkeypatch, kind):
    """Make stderr a terminal for the rest of a test."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(kernel_cache, "note_seconds", lambda *_: None)
    return terminal


PURPOSE = compilations.Purpose("a program of the test's", 60.0)


@pytest.mark.parametrize("columns", [20, 80, 1000])
def test_something_turns_on_a_terminal(columns, folder, silent_so_far, monkeypatch):
    """One line stays, and nothing turns any more when the outermost compilation ends."""
    terminal = terminal_of(monkeypatch, "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    before = threading.active_count()
    with compilations.timed("of the test's", PURPOSE):
        with compilations.timed("inner"):
            pass
        deadline = time.monotonic() + HANGS_AFTER
        while not {"|", "/", "-", "\\"} <= set(terminal.getvalue().partition("time)")[2]):
            assert time.monotonic() < deadline, "nothing turns"
            time.sleep(0.01)
    assert threading.active_count() == before
    line, rest = terminal.shown()
    assert line.startswith("nbdense: compiling a program of the test's for this CPU, which takes about 60 s, once: ")
    assert line.endswith("(`nbdense warmup` compiles ahead of time)") and not rest
    with compilations.timed("another"):
        pass
    assert terminal.shown() == [line, ""]


def test_nothing_turns_on_a_terminal_that_cannot_step_back(folder, silent_so_far, monkeypatch):
    terminal = terminal_of(monkeypatch, "dumb")
    with compilations.timed("of the test's", PURPOSE):
        time.sleep(0.3)
    assert terminal.getvalue().count("\n") == 1 and "\b" not in terminal.getvalue()
