"""What to_onnx leaves on the disk: one file, or two where one cannot hold the weights; whole ones, or none."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nbdense import files
from nbdense.export import to_onnx, verify_onnx
from nbdense.export.graph import builder as graph
from nbdense.export.graph.checks import serialize
from nbdense.export.write import writing
from nbdense.quant import quantize
from test_export import network, rows


@pytest.fixture(params=["nameless", "hidden"])
def kind_of_new_file(request, monkeypatch):
    """New files without a name, where there are such, and under a hidden one, as elsewhere."""
    if request.param == "hidden":
        monkeypatch.setattr(files, "_NO_NAME", 0)
    return request.param


@pytest.fixture
def small_files(monkeypatch):
    """The limit of what one file can hold, within reach of a test."""
    monkeypatch.setattr(graph, "LARGEST_FILE", 5000)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


# -- one file --


def test_a_file_is_whole_and_like_others(tmp_path, kind_of_new_file):
    model = to_onnx(network((3, 2), ["linear"]), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == serialize(model)
    (tmp_path / "other").touch()
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert names(tmp_path) == ["m.onnx", "other"]


def test_an_old_file_is_replaced_and_keeps_its_permissions(tmp_path, kind_of_new_file):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    model = to_onnx(network((3, 2), ["linear"]), path)
    assert path.read_bytes() == serialize(model)
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("as_type", [str, os.fsencode], ids=["str", "bytes"])
def test_a_relative_path(as_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if as_type is os.fsencode:
        with pytest.raises(TypeError):
            to_onnx(network((3, 2), ["linear"]), as_type("m.onnx"))
        assert names(tmp_path) == []
        return
    to_onnx(network((3, 2), ["linear"]), as_type("m.onnx"))
    assert names(tmp_path) == ["m.onnx"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="no_such_folder"):
        to_onnx(network((3, 2), ["linear"]), tmp_path / "no_such_folder" / "m.onnx")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        to_onnx(network((3, 2), ["linear"]), tmp_path)
    assert names(tmp_path) == []


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch, kind_of_new_file):
    # Simulated: nothing is unwritable to root, who runs tests in containers.
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=f"cannot write .*{tmp_path.name}"):
        to_onnx(network((3, 2), ["linear"]), tmp_path / "m.onnx", verify=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "chmod"])
def test_a_file_that_cannot_be_finished_leaves_the_old_one(where, tmp_path, monkeypatch, kind_of_new_file):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, where, fail)
        with pytest.raises(OSError, match="No space"):
            to_onnx(network((3, 2), ["linear"]), path, verify=False)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["m.onnx"]


# -- two files --


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_what_one_file_cannot_hold_lies_beside_it(quantized, tmp_path, small_files, kind_of_new_file):
    net = network((20, 70, 40, 3), ["relu", "relu", "softmax"])
    model = quantize(net, rows(20)) if quantized else net
    path = tmp_path / "m.onnx"
    proto = to_onnx(model, path)
    (data,) = [name for name in names(tmp_path) if name != "m.onnx"]
    assert writing.location_of(proto) == data
    assert data.startswith("m.onnx.")
    assert data.endswith(".data")
    assert (tmp_path / "m.onnx").stat().st_size < 5000 + 70 * 40
    result = verify_onnx(path, model)
    assert result.agrees, result
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": rows(20)})
    whole = onnx.load_model(path)
    onnx.external_data_helper.convert_model_from_external_data(whole)
    (expected,) = onnxruntime.InferenceSession(serialize(whole), providers=["CPUExecutionProvider"]).run(
        None, {"input": rows(20)}
    )
    np.testing.assert_array_equal(found, expected)


def test_the_largest_constants_lie_outside_and_start_on_pages(tmp_path, small_files):
    path = tmp_path / "m.onnx"
    proto = to_onnx(network((20, 70, 40, 3), ["relu", "relu", "softmax"]), path)
    said = {t.name: {entry.key: entry.value for entry in t.external_data} for t in proto.graph.initializer}
    outside = {name for name, entries in said.items() if entries}
    assert outside == {"d0/weight", "d1/weight"}
    for name in outside:
        assert int(said[name]["offset"]) % 4096 == 0
        assert set(said[name]) == {"location", "offset", "length"}


def test_without_a_path_there_is_no_place_beside(small_files):
    with pytest.raises(ValueError, match="more than a ModelProto can hold: give a path"):
        to_onnx(network((20, 70, 40, 3), ["relu", "relu", "softmax"]))


def test_a_model_without_its_data_needs_a_path(tmp_path, small_files):
    net = network((20, 70, 40, 3), ["relu", "relu", "softmax"])
    proto = to_onnx(net, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="give the model's path"):
        verify_onnx(proto, net)
    (data,) = tmp_path.glob("*.data")
    content = data.read_bytes()
    data.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"m\.onnx(: the file .*\.data beside it| is not a valid)"):
        verify_onnx(tmp_path / "m.onnx", net)
    data.write_bytes(content[:400] + bytes(400) + content[800:])
    assert not verify_onnx(tmp_path / "m.onnx", net).agrees
    data.unlink()
    with pytest.raises(ValueError, match=r"m\.onnx is not a valid ONNX model"):
        verify_onnx(tmp_path / "m.onnx", net)


def test_data_goes_with_its_model(tmp_path, small_files, kind_of_new_file, monkeypatch):
    path = tmp_path / "m.onnx"
    others = ["m.onnx.0.data", "m.onnx.data", "n.onnx.0123456789abcdef.data"]
    for name in others:
        (tmp_path / name).touch()
    seen = set()
    for seed in (0, 1, 1):
        to_onnx(network((20, 70, 40, 3), ["relu", "relu", "softmax"], seed), path)
        (data,) = set(names(tmp_path)) - {"m.onnx", *others}
        seen.add(data)
        onnx.checker.check_model(str(path), full_check=True)
    assert len(seen) == 2
    monkeypatch.undo()
    to_onnx(network((20, 70, 40, 3), ["relu", "relu", "softmax"]), path)
    assert names(tmp_path) == sorted(["m.onnx", *others])


@pytest.mark.parametrize("old", [False, True], ids=["first", "again"])
def test_a_model_that_cannot_be_named_leaves_no_data(old, tmp_path, small_files, monkeypatch, kind_of_new_file):
    path = tmp_path / "m.onnx"
    if old:
        to_onnx(network((20, 70, 40, 3), ["relu", "relu", "softmax"], 1), path)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    publish = writing.StagedFile.publish

    def fail_for_the_model(self):
        if self.path == path:
            raise OSError(28, "No space left on device")
        publish(self)

    monkeypatch.setattr(writing.StagedFile, "publish", fail_for_the_model)
    for seed in (1, 2):
        with pytest.raises(OSError, match="No space"):
            to_onnx(network((20, 70, 40, 3), ["relu", "relu", "softmax"], seed), path, verify=False)
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


# -- killed --

SLOW = """
import os, sys, time
sys.path.insert(0, sys.argv[3])
from nbdense.export.graph import builder as graph
from nbdense.export import to_onnx
from test_export import network
graph.LARGEST_FILE = int(sys.argv[2])
net = network((20, 70, 40, 3), ["relu", "relu", "softmax"])
real = {name: getattr(os, name) for name in ("write", "fsync")}
pieces = 0
def slow(name):
    def call(handle, *rest):
        global pieces
        if handle < 3:
            return real[name](handle, *rest)
        pieces += 1
        real["write"](1, f"{name} {pieces}\\n".encode())
        if pieces == int(sys.argv[4]):
            time.sleep(60)
        return real[name](handle, *rest)
    return call
for name in real:
    setattr(os, name, slow(name))
to_onnx(net, sys.argv[1], verify=False)
real["write"](1, b"done\\n")
"""


@pytest.mark.skipif(not files._NO_NAME, reason="elsewhere a kill may leave a hidden file")
@pytest.mark.parametrize(("limit", "steps"), [(10**9, 2), (5000, 1), (5000, 4), (5000, 7)])
def test_a_kill_leaves_nothing(limit, steps, tmp_path):
    """Killed before some write or fsync of the export; there are two in one file, and eight in two."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", SLOW, str(tmp_path / "m.onnx"), str(limit), str(here), str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline() for _ in range(steps)]
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "" not in said
    assert "done\n" not in said
    assert names(tmp_path) == []
