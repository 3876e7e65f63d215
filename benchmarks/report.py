"""Results as text: the figures that targets are about, the verdicts, and the pages' tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.calls import ALLOCATING, EMPTY
from benchmarks.cases import ACCURACY, ACCURACY_CASE, CASES, LOOPS, TARGETS
from benchmarks.machine import date_of
from benchmarks.peers import PEERS

OURS = "nbdense"
OUR_STEP, OUR_ROW = "nbdense_train_step", "nbdense_learn_one"
OURS_SPARSE, OURS_INT8_SPARSE = "nbdense_sparse", "nbdense_int8_sparse"
OURS_INT8, THEIRS_INT8 = "nbdense_int8", ("onnxruntime_int8", "onnxruntime_uint8")

LIMIT = (
    "The limit is the larger of what multiply-adds on registers alone and the fastest product of any peer reach in the "
    "same run."
)
# Of results from before products were measured.
LOW_LIMIT = (
    "The limit is what a loop of multiply-adds reached in the same run that moved its sums about in between: 97 "
    "GFLOP/s a core of a Zen 4, where the loop that has none of that reads 117. Shares are too high by a fifth."
)

Results = dict[str, Any]
Row = dict[str, Any]


def _groups(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Return rows by (case, batch, threads), then by library, in the order in which they were measured."""
    groups: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["case"], row.get("batch"), row["threads"]), {})[row["library"]] = row
    return groups


def _label(kind: str, case: str, batch: int | None, threads: int) -> str:
    where = case if batch is None else f"{case}, batch {batch}"
    return f"{kind}/{where}/{threads} thread{'s' if threads > 1 else ''}"


def share_of_limit(row: Row) -> float:
    """Return the share of the FMA limit, measured between the row's turns, that a step's products reach."""
    operations: float = CASES[row["case"]].step_operations
    share: float = operations / row["each_s"] / 1e9 / row["limit_gflops"]
    return share


def figures(results: Results) -> dict[str, float]:
    """Return every figure that a target can be about, by name."""
    found: dict[str, float] = {}
    for kind in ("training", "inference"):
        for key, libraries in _groups(results[kind]).items():
            if OURS not in libraries:
                continue
            label, ours = _label(kind, *key), libraries[OURS]
            for library, row in libraries.items():
                if library != OURS:
                    found[f"{label}/times faster than {library}"] = row["each_s"] / ours["each_s"]
            if kind == "training":
                found[f"{label}/share of the FMA limit"] = share_of_limit(ours)
    for key, libraries in _groups(results.get("int8", [])).items():
        if OURS_INT8 not in libraries:
            continue
        label, ours = _label("int8", *key), libraries[OURS_INT8]
        if theirs := [libraries[library]["each_s"] for library in THEIRS_INT8 if library in libraries]:
            found[f"{label}/times faster than onnxruntime"] = min(theirs) / ours["each_s"]
        if OURS in libraries:
            found[f"{label}/times faster than nbdense in float32"] = libraries[OURS]["each_s"] / ours["each_s"]
    found |= _sparse_figures(results)
    found |= _loop_figures(results)
    for row in results.get("busy", []):
        if row["busy"]:
            found[f"busy/{row['case']}/times as long as with OMP_NUM_THREADS=1"] = row["default_s"] / row["one_s"]
    for row in results["accuracy"]:
        found[f"accuracy/{row['library']}"] = row["accuracy"]
    if start := results["start"]:
        for what, name in (("nbdense", "nbdense"), ("nbdense.models", "models")):
            found[f"start/import {what}, times import numba"] = start[f"import_{name}_s"] / start["import_numba_s"]
        found["start/import, fit and predict with a warm cache, s"] = start["warm_s"]
        found["start/compile with a cold cache, s"] = start["compile_s"]
    return found


def _sparse_groups(results: Results) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Return rows of sparse networks by (case and pattern, batch, threads), then by library."""
    rows = [{**row, "case": f"{row['case']}, {row['pattern']}"} for row in results.get("sparse", [])]
    return _groups(rows)


def _sparse_figures(results: Results) -> dict[str, float]:
    """Return how many times faster sparse networks are than dense ones."""
    found = {}
    for key, libraries in _sparse_groups(results).items():
        label = _label("sparse", *key)
        for name, ours, dense in (
            ("dense", OURS_SPARSE, (OURS, "onnxruntime")),
            ("dense int8", OURS_INT8_SPARSE, (OURS_INT8,)),
        ):
            theirs = [libraries[library]["each_s"] for library in dense if library in libraries]
            if ours in libraries and theirs:
                found[f"{label}/times faster than {name}"] = min(theirs) / libraries[ours]["each_s"]
    return found


def _loop_figures(results: Results) -> dict[str, float]:
    """Return what loops of one's own cost: beyond a step of fit, in calls and steps of others."""
    found: dict[str, float] = {}
    predictions = _predictions_of_a_row(results)
    for key, libraries in _groups(results.get("loops", [])).items():
        label = _label("loops", *key)
        seconds = {library: row["each_s"] for library, row in libraries.items()}
        fit = seconds.get(OURS)
        if fit is not None and "jax_loop" in seconds:
            for way in ("train_on_batch", "own_loop"):
                beyond = (seconds[f"{OURS}_{way}"] - fit) / seconds["jax_loop"]
                found[f"{label}/{way} beyond a step of fit, jitted JAX steps"] = beyond
        if fit is not None and EMPTY in seconds:
            beyond = (seconds[OUR_STEP] - 1.05 * fit) / seconds[EMPTY]
            found[f"{label}/train_step beyond 1.05 steps of fit, empty njit calls"] = beyond
        row = predictions.get((key[0], key[2]))
        if row is not None and ALLOCATING in seconds:
            found[f"{label}/predict of a row, njit calls with an array allocated"] = row / seconds[ALLOCATING]
        for ours, said in ((OUR_STEP, "times faster than"), (OUR_ROW, "learn_one, times faster than")):
            for library in seconds:
                if library in PEERS and not library.startswith(OURS) and ours in seconds:
                    found[f"{label}/{said} {library}"] = seconds[library] / seconds[ours]
    return found


def _predictions_of_a_row(results: Results) -> dict[tuple[str, int], float]:
    """Return the seconds of our `predict` of one row, by case and threads."""
    return {
        (row["case"], row["threads"]): row["each_s"]
        for row in results["inference"]
        if row["library"] == OURS and row["batch"] == 1
    }


def verdicts(results: Results) -> str:
    """Return each target, its figure, and whether it is met."""
    found = figures(results)
    lines = []
    for target in TARGETS:
        value = found.get(target.figure)
        verdict = "not measured" if value is None else "met" if target.met(value) else "NOT MET"
        shown = "-" if value is None else f"{value:.3g}"
        lines.append(f"{target.figure:<81}{target!s:>7}{shown:>9}  {verdict}")
    timed = results["training"] + results["inference"]
    timed += [row for part in ("int8", "sparse", "loops") for row in results.get(part, [])]
    unsteady = sum(max(row["turns_s"]) > 1.25 * row["each_s"] for row in timed)
    if unsteady:
        lines.append(f"{unsteady} medians have a turn that was a quarter slower: was the machine quiet?")
    lines += [f"FAILED CHECK {failure}" for failure in results["failures"]]
    return "\n".join(lines)


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _beside(libraries: dict[str, Row], columns: list[str], ours: str = OURS) -> list[str]:
    """Return the microseconds of each library; of the others also how many times ours that is."""
    cells = []
    digits = 1 if ours == OURS else 2
    for library in columns:
        row = libraries.get(library)
        if row is None:
            cells.append("-")
        elif library == ours or ours not in libraries:
            cells.append(_microseconds(row["each_s"]))
        else:
            cells.append(f"{_microseconds(row['each_s'])} ({row['each_s'] / libraries[ours]['each_s']:.{digits}f}x)")
    return cells


def _columns(rows: Iterable[Row]) -> list[str]:
    there = {row["library"] for row in rows}
    return [library for library in PEERS if library in there]


def _titles(columns: list[str]) -> list[str]:
    return [PEERS[library].title for library in columns]


def render_machine(results: Results) -> str:
    """Return a sentence on the machine and the versions."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    dates = "".join(f", {part} {date}" for part, date in results.get("dates", {}).items() if date != machine["date"])
    return (
        f"Measured {date_of(machine)}{dates}, by `make bench` on {machine['cores']} cores of {machine['cpu']} "
        f"({machine['vector_bytes'] * 8}-bit vectors), {machine['system']}, Python {machine['python']}; {versions}."
    )


def render_training(results: Results) -> str:
    """Return the table of training, and how to read it."""
    rows = results["training"]
    columns = _columns(rows)
    lines = []
    for (name, _, threads), libraries in _groups(rows).items():
        case = CASES[name]
        share = f"{share_of_limit(libraries[OURS]):.0%}" if OURS in libraries else "-"
        lines.append([case.shape, str(case.batch), str(threads), *_beside(libraries, columns), share])
    table = _table(["network", "batch", "threads", *_titles(columns), "of the limit"], lines)
    compiled = []
    for library in columns:
        seconds = [row["compile_s"] for row in rows if row["library"] == library]
        compiled.append(f"{PEERS[library].title} {max(seconds):.1f}")
    return (
        "Training, microseconds a step (relu, softmax, cross-entropy, Adam, float32, shuffled each epoch; in brackets: "
        f"how many times nbdense's):\n\n{table}\n\n"
        f"{LIMIT if results.get('products') else LOW_LIMIT} The share counts the products' operations over the whole "
        f"step's time. The slowest first epoch's excess, in seconds: {', '.join(compiled)}; nbdense compiles once for "
        "all models, and keeps what it compiled."
    )


def render_inference(results: Results) -> str:
    """Return the table of inference."""
    rows = results["inference"]
    columns = _columns(rows)
    lines = [
        [CASES[name].shape, str(batch), str(threads), *_beside(libraries, columns)]
        for (name, batch, threads), libraries in _groups(rows).items()
    ]
    table = _table(["network", "batch", "threads", *_titles(columns)], lines)
    return f"Inference, microseconds a call, NumPy in and NumPy out:\n\n{table}"


def render_int8(results: Results) -> str:
    """Return the table of inference in 8-bit integers."""
    rows = results.get("int8", [])
    if not rows:
        return "Int8 inference was not measured."
    there = _columns(rows)
    columns = [library for library in (OURS_INT8, *THEIRS_INT8, OURS) if library in there]
    titles = ["nbdense float32" if library == OURS else PEERS[library].title for library in columns]
    lines = [
        [CASES[name].shape, str(batch), str(threads), *_beside(libraries, columns, OURS_INT8)]
        for (name, batch, threads), libraries in _groups(rows).items()
    ]
    table = _table(["network", "batch", "threads", *titles], lines)
    return (
        "The same in 8-bit integers: nbdense's `quantize`, and onnxruntime on the file that nbdense exports of that "
        f"network, with int8 and with uint8 activations (in brackets: how many times nbdense int8's):\n\n{table}"
    )


def render_sparse(results: Results) -> str:
    """Return the table of inference without the weights that are zero."""
    groups = _sparse_groups(results)
    if not groups:
        return "Sparse inference was not measured."
    columns = _columns(results["sparse"])
    columns.sort(key=lambda library: library != OURS_SPARSE)
    lines = []
    for (where, batch, threads), libraries in groups.items():
        name, _, pattern = where.partition(", ")
        cells = _beside(libraries, columns, OURS_SPARSE)
        lines.append([CASES[name].shape, pattern, str(batch), str(threads), *cells])
    table = _table(["network", "zero", "batch", "threads", *_titles(columns)], lines)
    return (
        "Networks most of whose weights are zero, microseconds a call: `sparsify`, of the model in float and in int8, "
        "beside what multiplies by the zeros and by others' sparse matrices (in brackets: how many times nbdense "
        f"sparse's):\n\n{table}"
    )


def render_loops(results: Results) -> str:
    """Return the table of loops of one's own."""
    rows = results.get("loops", [])
    if not rows:
        return "Loops of one's own were not measured."
    columns = _columns(rows)
    titles = ["fit" if library == OURS else PEERS[library].title for library in columns]
    lines = [
        [LOOPS[name].shape, str(LOOPS[name].batch), str(threads), *_beside(libraries, columns, OUR_STEP)]
        for (name, _, threads), libraries in _groups(rows).items()
    ]
    table = _table(["network", "batch", "threads", *titles], lines)
    empty, allocating = (
        _microseconds(min(row["each_s"] for row in rows if row["library"] == kind)) for kind in (EMPTY, ALLOCATING)
    )
    predictions = _predictions_of_a_row(results)
    rows_predicted = "".join(
        f", and `predict` of one row of {LOOPS[name].shape} {_microseconds(predictions[name, threads])}"
        for name, _, threads in _groups(rows)
        if (name, threads) in predictions
    )
    return (
        "A loop of one's own, microseconds a step: each batch is a call from Python, NumPy in and the loss out, beside "
        f"a step of `fit` (in brackets: how many times `train_step`'s):\n\n{table}\n\n"
        f"A call of an empty function that numba has compiled takes {empty} there, one that "
        f"allocates an array {allocating}{rows_predicted}; microseconds too."
    )


def render_busy(results: Results) -> str:
    """Return the table of training beside other processes."""
    rows = results.get("busy", [])
    if not rows:
        return "Training beside other processes was not measured."
    lines = [
        [
            CASES[row["case"]].shape,
            str(CASES[row["case"]].batch),
            str(row["busy"]),
            f"{row['one_s']:.2f}",
            f"{row['default_s']:.2f} ({row['default_s'] / row['one_s']:.2f}x)",
        ]
        for row in rows
    ]
    table = _table(["network", "batch", "busy processes", "OMP_NUM_THREADS=1", "as it comes"], lines)
    return (
        "Seconds of a whole `fit`, alone and beside a process that keeps a CPU busy, with the threads that nbdense "
        f"takes by itself, and with one:\n\n{table}"
    )


def render_accuracy(results: Results) -> str:
    """Return the table of seconds to a test accuracy."""
    rows = results["accuracy"]
    if not rows:
        return "Time to accuracy was not measured."
    case = CASES[ACCURACY_CASE]
    lines = [
        [PEERS[row["library"]].title, f"{row['seconds']:.2f}", f"{row['epochs']:g}", f"{row['accuracy']:.2%}"]
        for row in rows
    ]
    table = _table(["library", "seconds", "epochs", "lowest accuracy"], lines)
    return (
        f"Seconds of training until {case.shape} has a test accuracy of {ACCURACY:.1%} on MNIST (60,000 rows, batch "
        f"{case.batch}, Adam, {rows[0]['threads']} threads; medians over {len(rows[0]['runs'])} initialisations):\n\n"
        f"{table}"
    )


def render_start(results: Results) -> str:
    """Return the table of cold starts."""
    start = results["start"]
    if not start:
        return "Cold start was not measured."
    return "Seconds of a whole process:\n\n" + _table(
        ["process", "seconds"],
        [
            ["`import numba`", f"{start['import_numba_s']:.2f}"],
            ["`import nbdense`", f"{start['import_nbdense_s']:.2f}"],
            ["`import nbdense.models`", f"{start['import_models_s']:.2f}"],
            ["import, fit two epochs of digits, predict", f"{start['warm_s']:.2f}"],
            ["the same the first time ever, compiling", f"{start['cold_s']:.1f}"],
        ],
    )


RENDERERS = {
    "machine": render_machine,
    "training": render_training,
    "inference": render_inference,
    "int8": render_int8,
    "sparse": render_sparse,
    "loops": render_loops,
    "busy": render_busy,
    "accuracy": render_accuracy,
    "start": render_start,
}


def _kind(results: Results) -> str:
    """Return a heading's words for the kind of CPU."""
    machine = results["machine"]
    return f"**{machine['cpu']}** ({machine['llvm_cpu']}, {machine['cores']} cores)"


def blocks(published: list[Results]) -> dict[str, str]:
    """Return each block with a part for each kind of CPU, but those in whose days there was no such measurement."""
    return {
        name: "\n\n".join(f"{_kind(results)}\n\n{render(results)}" for results in published if name in results)
        for name, render in RENDERERS.items()
    }
