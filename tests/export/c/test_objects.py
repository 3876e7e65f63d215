"""Object files and modules, and the folders for Arduino, Zephyr and CMake."""

import subprocess

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from benchmarks.edge.emulator import Wasm
from nbdense.commands.cli import main
from nbdense.export import to_arduino, to_cmake, to_object, to_zephyr
from nbdense.quant.model.model import QuantizedModel
from tests.support.edge_networks import chain, integers_for


def test_object_holds_the_functions_and_nothing_undefined_but_the_compiler_s(tmp_path):
    to_object(chain([20, 64, 64, 2]), tmp_path / "net.o", "cortex-m4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.h", "net.o"]
    with (tmp_path / "net.o").open("rb") as stream:
        elf = ELFFile(stream)
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
        assert elf.header["e_machine"] == "EM_ARM"
    named = {symbol.name for symbol in symbols if symbol["st_info"]["bind"] == "STB_GLOBAL"}
    assert {"net_predict", "net_predict_values"} <= named
    undefined = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"} - {""}
    assert all(name.startswith("__aeabi_") for name in undefined), undefined


def test_module_runs_in_wasmtime(tmp_path):
    network = chain([9, 8, 3])
    to_object(network, tmp_path / "net.wasm", "wasm32", name="other")
    q, x = integers_for(network, 5)
    integers, values = (Wasm(tmp_path / "net.wasm", f"other_predict{end}") for end in ("", "_values"))
    for row, real in zip(q, x, strict=True):
        np.testing.assert_array_equal(
            integers.call(row, 3, np.int8).output, QuantizedModel(network).predict_integers(real[np.newaxis])[0]
        )
        np.testing.assert_array_equal(
            values.call(real, 3, np.float32).output, QuantizedModel(network).predict(real[np.newaxis])[0]
        )


def test_what_no_object_can_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in '\.wasm'"):
        to_object(chain([3, 2]), tmp_path / "net.o", "wasm32")
    with pytest.raises(ValueError, match="target must be a processor"):
        to_object(chain([3, 2]), tmp_path / "net.o", "generic")
    with pytest.raises(RuntimeError, match="compiler failed"):
        to_object(chain([3, 2]), tmp_path / "net.o", "cortex-m4", compiler=["cc", "-mcpu=nonesuch"], verify=False)
    assert not list(tmp_path.iterdir())


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_arduino_library(tmp_path):
    to_arduino(chain([3, 2]), tmp_path / "net")
    files = files_in(tmp_path / "net")
    assert set(files) == {
        "README.md",
        "examples/predict/predict.ino",
        "library.properties",
        "src/net.c",
        "src/net.h",
    }
    properties = dict(line.split("=", 1) for line in files["library.properties"].splitlines())
    assert {
        "name",
        "version",
        "author",
        "maintainer",
        "sentence",
        "paragraph",
        "category",
        "url",
        "architectures",
    } <= set(properties)
    assert len(files["README.md"].splitlines()) <= 10
    sketch = tmp_path / "sketch.cpp"
    sketch.write_text(
        "struct { void begin(long) {} void println(float) {} } Serial;\nvoid delay(int) {}\n"
        + files["examples/predict/predict.ino"]
    )
    subprocess.run(
        ["c++", "-fsyntax-only", "-Wall", "-Werror", "-I", str(tmp_path / "net" / "src"), str(sketch)], check=True
    )


def test_zephyr_module(tmp_path):
    to_zephyr(chain([3, 2]), tmp_path / "net")
    files = files_in(tmp_path / "net")
    assert set(files) == {
        "CMakeLists.txt",
        "Kconfig",
        "README.md",
        "include/net.h",
        "src/net.c",
        "zephyr/module.yml",
    }
    assert files["CMakeLists.txt"].startswith("if(CONFIG_NBDENSE_NET)\n")  # not CONFIG_NET, which might be Zephyr's
    assert files["Kconfig"].startswith("config NBDENSE_NET\n")


def test_packages_replace_their_files_and_refuse_what_is_no_folder(tmp_path):
    to_cmake(chain([3, 2]), tmp_path / "net")
    assert "add_library(net STATIC net.c)" in (tmp_path / "net" / "CMakeLists.txt").read_text()
    to_cmake(chain([3, 4]), tmp_path / "net")
    assert "#define NET_OUTPUTS 4\n" in (tmp_path / "net" / "net.h").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="it is a file"):
        to_cmake(chain([3, 2]), tmp_path / "file")
    with pytest.raises(ValueError, match="keyword"):
        to_cmake(chain([3, 2]), tmp_path / "double")
    assert {path.name for path in tmp_path.iterdir()} == {"net", "file"}


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    QuantizedModel(chain([3, 4, 2])).save("net.nbdense")
    assert main(["export", "net.nbdense", "--to", "c", "--target", "cortex-m4"]) == 0
    assert capsys.readouterr().out == "wrote net.c\n" and (tmp_path / "net.h").exists()
    assert main(["export", "net.nbdense", "--to", "onnx", "--out", "other.onnx"]) == 0
    assert main(["export", "net.nbdense", "--to", "tflite"]) == 0 and (tmp_path / "net.tflite").exists()
    assert main(["export", "net.nbdense", "--to", "arduino"]) == 0 and (tmp_path / "net" / "src").is_dir()
    for arguments, why in [
        (["none.nbdense", "--to", "c"], "no model file"),
        (["net.nbdense", "--to", "object"], "needs its processor"),
        (["net.nbdense", "--to", "c", "--name", "int"], "keyword"),
        (["net.nbdense", "--to", "onnx", "--name", "net"], "no --name"),
    ]:
        assert main(["export", *arguments]) == 1
        assert why in capsys.readouterr().err
