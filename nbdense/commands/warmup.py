"""``nbdense warmup``: compile every entry ahead of time, for instance while a container image is built.

Signatures are not listed here, where they could differ from real calls': a model of each kind is trained and asked.
What a program calls by its address is compiled by the tables that it is in: activations, losses, optimizers and rows.
`PARTS` has all of it; parts are compiled side by side, in a process each.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbdense._compile import compilations, kernel_cache, policy
from nbdense._compile.compilations import Compilation
from nbdense._compile.cpus import find_cpus
from nbdense.commands.errors import CommandError

DTYPES = ("float32", "float64")
MOST_PROCESSES = 4  # no more parts take long at the same time


class WarmupError(CommandError):
    """An error: compiled kernels cannot be kept."""


@dataclass(frozen=True)
class Part:
    """A part of what is compiled.

    Parameters
    ----------
    reach : callable
        ``reach(dtype)`` calls everything in it, for models of a dtype.
    after : tuple of str
        Parts that have what it shares with them; two processes would both compile that.
    quant : bool
        Whether it is of `nbdense.quant`.
    """

    reach: Callable[[str], Any]
    after: tuple[str, ...] = ()
    quant: bool = False


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
        Called with a line before, and with one for each entry that was compiled.

    Returns
    -------
    list of Compilation
        What was compiled; empty if everything was in the cache.

    Raises
    ------
    WarmupError
        If there is no JIT, the cache folder cannot be written, or a process was ended.
    """
    if not policy.JIT:
        raise WarmupError("NUMBA_DISABLE_JIT is set: nothing is compiled")
    folder = kernel_cache.cache_folder()
    if folder is None:
        raise WarmupError("there is no home folder to keep compiled kernels in: set NBDENSE_CACHE_DIR")
    if not kernel_cache.writable(folder):
        raise WarmupError(f"{folder} cannot be written: set NBDENSE_CACHE_DIR to another")
    tasks = _tasks(dtypes, quant)
    processes = min(len(tasks), find_cpus().usable, MOST_PROCESSES)
    some = f"{processes} processes" if processes > 1 else "this process"
    tell(f"compiling for {' and '.join(dtypes)} what is not there yet, in {some}, into {folder}")
    done: list[Compilation] = []
    try:
        for dtype, made, error in _side_by_side(tasks, processes):
            for one in made:
                tell(f"{one.entry}, {dtype}: {one.seconds:.1f} s")
            done += made
            if error:
                raise WarmupError(f"{folder} cannot be written ({error}): set NBDENSE_CACHE_DIR to another")
    except BrokenProcessPool as error:
        raise WarmupError("a process that compiled was ended, for want of memory perhaps: run it again") from error
    return done


Task = tuple[str, str]  # a part's name, and a dtype
Result = tuple[str, list[Compilation], str]  # the dtype, what was compiled, and why it could not be kept


def _tasks(dtypes: Sequence[str], quant: bool) -> dict[Task, set[Task]]:
    """Return what is to be done, and after what."""
    parts = {name: part for name, part in PARTS.items() if quant or not part.quant}
    tasks: dict[Task, set[Task]] = {}
    for dtype in dtypes:
        for name, part in parts.items():
            tasks[name, dtype] = {(other, dtype) for other in part.after}
            if part.quant and dtype != dtypes[0]:
                tasks[name, dtype].add((name, dtypes[0]))  # programs of integers are the same
    return tasks


def _side_by_side(tasks: dict[Task, set[Task]], processes: int) -> Iterator[Result]:
    """Compile in so many processes, each task as soon as those before it are done."""
    left, running = dict(tasks), dict[Future[Result], Task]()
    with _pool(processes) as submit:
        while left or running:
            undone = {*left, *running.values()}
            for task in [task for task, before in left.items() if not before & undone]:
                del left[task]
                running[submit(task)] = task
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                del running[future]
                yield future.result()


@contextmanager
def _pool(processes: int) -> Iterator[Callable[[Task], Future[Result]]]:
    """Give a function that has a task done: in one of several processes, or by this one."""
    if processes > 1:
        # A fresh process each: numba's threads do not survive a fork. Ctrl-C ends it without a word.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
            yield lambda task: pool.submit(_compile, task)
        return

    def done(task: Task) -> Future[Result]:
        future = Future[Result]()
        future.set_result(_compile(task))
        return future

    yield done


def _compile(task: Task) -> Result:
    """Compile a part in this process."""
    compilations.announce_nothing()
    before = len(compilations.compilations)
    name, dtype = task
    PARTS[name].reach(dtype)
    return dtype, compilations.compilations[before:], str(kernel_cache.save_error or "")


def _data(dtype: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.linspace(0, 1, 24, dtype=dtype).reshape(8, 3), np.arange(8) % 2


def _model(dtype: str, activation: str = "relu") -> Any:
    from nbdense.layers import Dense, Input
    from nbdense.models import Sequential

    model = Sequential([Input((3,)), Dense(4, activation), Dense(2, "softmax")], dtype=dtype)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _predict(dtype: str) -> None:
    _model(dtype).predict(_data(dtype)[0])


def _predict_by_columns(dtype: str) -> None:
    """Call the program for few rows of large networks, which the model is none of."""
    from nbdense.engine import program

    x, network = _data(dtype)[0], _model(dtype).network
    out = np.empty((len(x), network.n_out), network.dtype)
    program.predict_by_columns(network.inference, network.params, x, out, network.width, 0, 1)


def _train(dtype: str) -> None:
    _model(dtype).fit(*_data(dtype), verbose=0)


def _compile_on_demand(dtype: str) -> None:
    from nbdense.engine import program

    program.compile_on_demand(dtype)


def _activate(dtype: str) -> None:
    from nbdense.engine.elementwise.activations import ACTIVATIONS, ON_DEMAND

    for activation in ACTIVATIONS.values():
        if activation.code >= ON_DEMAND:
            activation.calls(dtype)


def _lose(dtype: str) -> None:
    from nbdense.engine.elementwise.loss_forms import FORMS

    for form in FORMS.values():
        form.loop(dtype)


def _optimize(dtype: str) -> None:
    from nbdense.optimizers import OPTIMIZERS, Adam

    for optimizer in (*(kind() for kind in OPTIMIZERS.values()), Adam(amsgrad=True)):
        optimizer.call(dtype)


def _set_rows(dtype: str) -> None:
    from nbdense.engine.rows.kind import ROW_KINDS, set_addresses
    from nbdense.engine.tables import LAYER

    rows = np.zeros(len(ROW_KINDS), LAYER)
    rows["kind"] = range(len(ROW_KINDS))
    set_addresses(rows, dtype)


def _quantize(dtype: str, **options: Any) -> None:
    from nbdense.quant import quantize

    x = _data(dtype)[0]
    quantize(_model(dtype, "tanh"), None if options.get("scheme") == "dynamic" else x, **options).predict(x)


def _train_quantized(dtype: str) -> None:
    from nbdense.quant import quantize_aware

    x, y = _data(dtype)
    aware = quantize_aware(_model(dtype), x)
    aware.fit(x, y, verbose=0)
    aware.predict(x)


def _sparsify(dtype: str) -> None:
    from nbdense.quant import prune, quantize, sparsify

    x = _data(dtype)[0]
    pruned = prune(_model(dtype), 0.5)
    if dtype == "float32":  # the only one in which it leaves layers in float
        sparsify(pruned, choice="1x1").predict(x)
    sparsify(quantize(pruned, x), choice="4x16").predict(x)


PARTS = {
    "predictions": Part(_predict),
    "training": Part(_train, after=("predictions",)),
    "activations": Part(_activate),
    "losses": Part(_lose),
    "optimizers": Part(_optimize),
    "layers": Part(_set_rows),
    "runs": Part(_compile_on_demand, after=("training",)),
    "few rows": Part(_predict_by_columns, after=("predictions",)),
    "integers": Part(_quantize, after=("training",), quant=True),  # which calibrates
    "roundings": Part(lambda dtype: _quantize(dtype, rounding="tflite"), after=("integers",), quant=True),
    # Layers in float, and GPTQ.
    "weights": Part(lambda dtype: _quantize(dtype, scheme="weight_only", bits=4), after=("integers",), quant=True),
    "sparse": Part(_sparsify, after=("integers",), quant=True),
    "dynamic": Part(lambda dtype: _quantize(dtype, scheme="dynamic"), after=("predictions",), quant=True),
    "aware": Part(_train_quantized, after=("integers",), quant=True),
}
