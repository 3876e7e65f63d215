"""`to_arduino`, `to_zephyr` and `to_cmake`: a model's C in the folder that each of them expects."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nbdense._version import __version__
from nbdense.export.c.api import file_texts, write_files
from nbdense.export.c.names import name_of

Files = dict[str, str]  # texts by their paths within the folder


def to_arduino(
    model_or_quantized: Any,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    target: str = "generic",
    class_names: Sequence[str] | None = None,
    verify: bool = True,
) -> None:
    """Write a model as an Arduino library, a folder for the sketchbook's ``libraries``.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model, as in `to_c`.
    path : path
        The library's folder; made if it is not there, and its files are replaced.
    name : str, optional
        What functions begin with, and the library's name; by default the folder's.
    target : str
        The processor, as in `to_c`.
    class_names : sequence of str, optional
        As in `to_c`.
    verify : bool
        As in `to_c`.

    Raises
    ------
    TypeError, ValueError, RuntimeError, OSError
        As `to_c`.
    """
    _write(_arduino, model_or_quantized, path, name, target, class_names, verify)


def to_zephyr(
    model_or_quantized: Any,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    target: str = "generic",
    class_names: Sequence[str] | None = None,
    verify: bool = True,
) -> None:
    """Write a model as a Zephyr module, a folder for the list ZEPHYR_EXTRA_MODULES.

    Its option in Kconfig, CONFIG_NBDENSE_NAME, is on by default.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model, as in `to_c`.
    path : path
        The module's folder; made if it is not there, and its files are replaced.
    name : str, optional
        What functions begin with, and the module's name; by default the folder's.
    target : str
        The processor, as in `to_c`.
    class_names : sequence of str, optional
        As in `to_c`.
    verify : bool
        As in `to_c`.

    Raises
    ------
    TypeError, ValueError, RuntimeError, OSError
        As `to_c`.
    """
    _write(_zephyr, model_or_quantized, path, name, target, class_names, verify)


def to_cmake(
    model_or_quantized: Any,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    target: str = "generic",
    class_names: Sequence[str] | None = None,
    verify: bool = True,
) -> None:
    """Write a model as a CMake target, a folder for ``add_subdirectory``.

    Parameters
    ----------
    model_or_quantized : Sequential, QuantizedModel, Network or QuantizedNetwork
        The model, as in `to_c`.
    path : path
        The target's folder; made if it is not there, and its files are replaced.
    name : str, optional
        What functions begin with, and the target's name; by default the folder's.
    target : str
        The processor, as in `to_c`.
    class_names : sequence of str, optional
        As in `to_c`.
    verify : bool
        As in `to_c`.

    Raises
    ------
    TypeError, ValueError, RuntimeError, OSError
        As `to_c`.
    """
    _write(_cmake, model_or_quantized, path, name, target, class_names, verify)


def _write(
    package: Callable[[str, str, str], Files],
    model: Any,
    path: str | os.PathLike[str],
    name: str | None,
    target: str,
    class_names: Sequence[str] | None,
    verify: bool,
) -> None:
    """Write the files that a package makes of a model's name, source and header."""
    folder = Path(path)
    own_name = name_of(folder, name)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"cannot write {folder}: it is a file")
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"cannot write {folder}: the folder {folder.parent} does not exist")
    texts = file_texts(model, own_name, own_name, target=target, memory="static", names=class_names, verify=verify)
    files = package(own_name, texts[f"{own_name}.c"], texts[f"{own_name}.h"])
    for file_name in files:
        (folder / file_name).parent.mkdir(parents=True, exist_ok=True)
    write_files({folder / file_name: text.encode("ascii") for file_name, text in files.items()})


def _arduino(name: str, source: str, header: str) -> Files:
    """Return the files of an Arduino library, with a sketch that predicts one row again and again."""
    call = _predict_function(name, header)
    properties = {
        "name": name,
        "version": __version__,
        "author": "nbdense",
        "maintainer": "nbdense",
        "sentence": f"The neural network {name}.",
        "paragraph": "Written by nbdense: no allocation, no dependency.",
        "category": "Data Processing",
        "url": "nbdense",
        "architectures": "*",
        "includes": f"{name}.h",
    }
    sketch = f"""\
#include <{name}.h>

float input[{name.upper()}_INPUTS];
float output[{name.upper()}_OUTPUTS];

void setup() {{
  Serial.begin(115200);
}}

void loop() {{
  // Fill input here.
  {call}(input, output);
  for (int i = 0; i < {name.upper()}_OUTPUTS; ++i) {{
    Serial.println(output[i]);
  }}
  delay(1000);
}}
"""
    return {
        f"src/{name}.c": source,
        f"src/{name}.h": header,
        "examples/predict/predict.ino": sketch,
        "library.properties": "".join(f"{key}={text}\n" for key, text in properties.items()),
        "README.md": _readme(
            name,
            call,
            "Copy this folder into the `libraries` folder of your sketchbook, and restart the IDE. Then open",
            f"File > Examples > {name} > predict.",
        ),
    }


def _zephyr(name: str, source: str, header: str) -> Files:
    """Return the files of a Zephyr module."""
    option = f"NBDENSE_{name.upper()}"  # Zephyr has a LOG and a TEST of its own, and a model may be called so
    return {
        f"src/{name}.c": source,
        f"include/{name}.h": header,
        "zephyr/module.yml": f"name: {name}\nbuild:\n  cmake: .\n  kconfig: Kconfig\n",
        "Kconfig": f'config {option}\n\tbool "The neural network {name}"\n\tdefault y\n',
        "CMakeLists.txt": (
            f"if(CONFIG_{option})\n  zephyr_library_named({name})\n  zephyr_include_directories(include)\n"
            f"  zephyr_library_sources(src/{name}.c)\nendif()\n"
        ),
        "README.md": _readme(
            name,
            _predict_function(name, header),
            "Name this folder in your application's `CMakeLists.txt`, before",
            f"`find_package(Zephyr)`: `list(APPEND ZEPHYR_EXTRA_MODULES path/to/{name})`.",
        ),
    }


def _cmake(name: str, source: str, header: str) -> Files:
    """Return the files of a CMake project of one static library."""
    return {
        f"{name}.c": source,
        f"{name}.h": header,
        "CMakeLists.txt": (
            "cmake_minimum_required(VERSION 3.13)\n"
            f"project({name} C)\nadd_library({name} STATIC {name}.c)\n"
            f"set_target_properties({name} PROPERTIES C_STANDARD 99)\n"
            f"target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})\n"
        ),
        "README.md": _readme(
            name,
            _predict_function(name, header),
            f"In your `CMakeLists.txt`: `add_subdirectory(path/to/{name})`, then",
            f"`target_link_libraries(your_program {name})`.",
        ),
    }


def _predict_function(name: str, header: str) -> str:
    """Return the name of the function that takes and gives floats: a model in integers has another beside it."""
    of_integers = f"{name}_predict_values"
    return of_integers if of_integers in header else f"{name}_predict"


def _readme(name: str, call: str, first: str, second: str) -> str:
    """Return the text of a package's README.md, whose two lines in the middle say where the folder goes."""
    return f"""\
# {name}

A neural network as C99, written by nbdense {__version__}.

{first}
{second}

`#include <{name}.h>`, then `{call}(input, output)` predicts one row. The header says what it takes;
the source begins with what each layer costs. Neither is to be edited: write them anew instead.
"""
