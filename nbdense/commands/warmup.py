"""``nbdense warmup``: compile every entry ahead of time, for instance while a container image is built.

Signatures are not listed here, where they could differ from real calls': a model of each kind is trained and asked.
What a program calls by its address is compiled by the tables that it is in: activations, losses, optimizers and rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import compilations, kernel_cache, policy
from nbdense._compile.compilations import Compilation
from nbdense.commands.errors import CommandError

if TYPE_CHECKING:
    from nbdense.network import Network

DTYPES = ("float32", "float64")


class WarmupError(CommandError):
    """An error: compiled kernels cannot be kept."""


def warm_up(
    dtypes: Sequence[str] = DTYPES, quant: bool = False, tell: Callable[[str], Any] = print
) -> list[Compilation]:
    """Compile what is not in the cache yet.

    Parameters
    ----------
    dtypes : sequence of {"float32", "float64"}
        Types of the models to compile for.
    quant : bool
        Compile the entries of `nbdense.quant` too.
    tell : callable
        Called with a line for each entry that was compiled.

    Returns
    -------
    list of Compilation
        What was compiled; empty if everything was in the cache.

    Raises
    ------
    WarmupError
        If there is no JIT, or the cache folder cannot be written.
    """
    if not policy.JIT:
        raise WarmupError("NUMBA_DISABLE_JIT is set: nothing is compiled")
    folder = kernel_cache.cache_folder()
    if folder is None:
        raise WarmupError("there is no home folder to keep compiled kernels in: set NBDENSE_CACHE_DIR")
    compilations.announce_nothing()
    started = told = len(compilations.compilations)
    for dtype in dtypes:
        for step in _steps(dtype, quant):
            step()
            for done in compilations.compilations[told:]:
                tell(f"{done.entry}, {dtype}: {done.seconds:.1f} s")
            told = len(compilations.compilations)
            if kernel_cache.save_error is not None:
                raise WarmupError(
                    f"{folder} cannot be written ({kernel_cache.save_error}): set NBDENSE_CACHE_DIR to another"
                )
    return compilations.compilations[started:]


def _steps(dtype: str, quant: bool) -> list[Callable[[], Any]]:
    """Return calls that reach every entry in turn."""
    from nbdense.layers import Dense, Input
    from nbdense.models import Sequential

    x = np.linspace(0, 1, 24, dtype=dtype).reshape(8, 3)
    y = np.arange(8) % 2
    model = Sequential([Input((3,)), Dense(4, "tanh"), Dense(2, "softmax")], dtype=dtype)
    model.compile("adam", "sparse_categorical_crossentropy")
    steps = [
        lambda: model.predict(x),  # a quick one first: if nothing can be kept, that is known in a moment
        lambda: model.fit(x, y, verbose=0),
    ]
    if quant:
        from nbdense.quant import quantize, quantize_aware

        steps += [
            lambda: quantize(model, x).predict(x),
            lambda: quantize(model, x, scheme="weight_only", bits=4).predict(x),  # layers in float, and GPTQ
            lambda: quantize(model, scheme="dynamic").predict(x),
            lambda: quantize_aware(model, x).predict(x),
        ]
    return [*steps, functools.partial(_predict_by_columns, model.network, x), *_on_demand(dtype)]


def _predict_by_columns(network: Network, x: npt.NDArray[Any]) -> None:
    """Call the program for few rows of large networks, which the model is none of."""
    from nbdense.engine import program

    out = np.empty((len(x), network.n_out), network.dtype)
    program.predict_by_columns(network.inference, network.params, x, out, network.width, 0, 1)


def _on_demand(dtype: str) -> Iterator[Callable[[], Any]]:
    """Yield calls that compile all that is compiled on demand."""
    from nbdense.engine.elementwise.activations import ACTIVATIONS, ON_DEMAND
    from nbdense.engine.elementwise.loss_forms import FORMS
    from nbdense.engine.rows.kind import ROW_KINDS, set_addresses
    from nbdense.engine.tables import LAYER
    from nbdense.optimizers import OPTIMIZERS, Adam

    for activation in ACTIVATIONS.values():
        if activation.code >= ON_DEMAND:
            yield functools.partial(activation.calls, dtype)
    for form in FORMS.values():
        yield functools.partial(form.loop, dtype)
    for optimizer in (*(kind() for kind in OPTIMIZERS.values()), Adam(amsgrad=True)):
        yield functools.partial(optimizer.call, dtype)
    rows = np.zeros(len(ROW_KINDS), LAYER)
    rows["kind"] = range(len(ROW_KINDS))
    yield functools.partial(set_addresses, rows, dtype)
