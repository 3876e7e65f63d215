"""Try what an installation without any extra can do, where nothing but it is found.

    python -I packaging/try_installed.py            # in an environment that has the wheel and its dependencies
    python -I packaging/try_installed.py SITE       # in one that has more: the wheel in a folder, the rest hidden

Run it in an empty folder, into which it writes. `make check-dist` does the first, `make test` the second.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

OPTIONAL = (
    "sklearn",
    "skl2onnx",
    "onnxruntime",
    "flatbuffers",
    "ai_edge_litert",
    "matplotlib",
    "numba_cuda",
    "pandas",
    "scipy",
)


class Hidden(PathFinder):
    """The finder of installed packages, that finds no optional one."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of what is not optional."""
        optional = fullname.partition(".")[0] in OPTIONAL
        return None if optional else super().find_spec(fullname, path, target)


def try_names(nb: Any) -> None:
    """See that every name is there, with or without its extra."""
    names: dict[str, Any] = {}
    exec("from nbdense import *", names)  # as a user types it
    assert set(nb.__all__) <= set(names), set(nb.__all__) - set(names)
    assert set(nb.__all__) < set(dir(nb))
    assert [name for name in dir(nb) if not hasattr(nb, name)] == []
    assert not isinstance(nb.Dense(2), nb.MLPClassifier) and not hasattr(nb.MLPClassifier, "fit")


def try_models(nb: Any) -> tuple[Any, Any]:
    """Fit, save, quantize, prune and export; return the float model and the quantized one."""
    import numpy as np

    x = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    model = nb.Sequential([nb.Dense(8, "relu"), nb.Dense(2, "softmax")])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=3, verbose=0)
    model.save("model.nbdense")
    assert (nb.load_model("model.nbdense").predict(x) == model.predict(x)).all()
    small = nb.quantize(model, x)
    assert abs(small.predict(x) - model.predict(x)).max() < 0.1
    assert nb.prune(model, 0.5).predict(x).shape == (120, 2)
    for name, made in (("float.onnx", model), ("int8.onnx", small)):
        nb.to_onnx(made, name)
        assert abs(nb.from_onnx(name).predict(x) - made.predict(x)).max() < 1e-5
    return model, small


def try_extras(nb: Any, model: Any, small: Any) -> None:
    """See that what needs an extra names it."""
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("sklearn", nb.MLPClassifier),
        ("sklearn", lambda: nb.MLPRegressor((8,), random_state=0)),
        ("skl2onnx", lambda: nb.pipeline_to_onnx(None)),
        ("onnxruntime", lambda: nb.verify_onnx("float.onnx", model)),
        ("tflite", lambda: nb.to_tflite(small)),
        ("tflite", lambda: nb.verify_tflite(b"", small)),
        ("plot", model.plot_weights),
        ("plot", lambda: small.report("plot")),
    ]
    for extra, call in calls:
        try:
            call()
        except ImportError as error:
            assert f"nbdense[{extra}]" in str(error), error
        else:
            raise AssertionError(f"what needs {extra} did without")


def try_command() -> None:
    """See that the command is there, and lists what it can do."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="nbdense")
    try:
        status = entry.load()(["--help"])
    except SystemExit as exit_:
        status = exit_.code
    assert status == 0, status


def main() -> None:
    """Try all of it."""
    if len(sys.argv) > 1:
        sys.meta_path[sys.meta_path.index(PathFinder)] = Hidden
        sys.path.insert(0, sys.argv[1])
    else:
        there = [name for name in OPTIONAL if find_spec(name) is not None]
        assert not there, f"this environment is not empty: it has {', '.join(there)}"
    import nbdense as nb

    assert Path.cwd() not in Path(nb.__file__).parents and "site" in nb.__file__, nb.__file__
    assert nb.__version__ == importlib.metadata.version("nbdense")
    try_names(nb)
    try_extras(nb, *try_models(nb))
    try_command()
    print(f"nbdense {nb.__version__} in {Path(nb.__file__).parent} does what it does without an extra")


if __name__ == "__main__":
    main()
