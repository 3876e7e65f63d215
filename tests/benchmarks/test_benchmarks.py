"""The benchmarks' tables agree with each other, and a small run works. Nothing here is timed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import busy, cases, measure, reference, report
from benchmarks.__main__ import main
from benchmarks.calls import ALLOCATING, EMPTY
from benchmarks.cases import CASES, LOOPS, PATTERNS, SPARSE_BATCHES, SPARSE_CASES, TARGETS, make_rows, make_weights
from benchmarks.measure import CheckError, Settings, check_inference
from benchmarks.peers import PEERS
from benchmarks.peers.sparse import narrowed
from benchmarks.publishing import pages
from tests.reference import naive

OUR_LOOPS = ["nbdense_train_step", "nbdense_train_on_batch", "nbdense_own_loop", "nbdense_learn_one"]
LIBRARIES = [
    "nbdense",
    "sklearn",
    "numpy",
    "nbdense_int8",
    "onnxruntime_int8",
    *OUR_LOOPS,
]  # of what the test extra installs


def row(library, seconds, threads=2, **others):
    return {
        "library": library, "threads": threads, "each_s": seconds, "turns_s": [seconds], "compile_s": 0.5,
        "limit_gflops": 100.0, **others,
    }  # fmt: skip


@pytest.fixture
def results():
    """Return a run's results as if every peer were ten times slower."""
    seconds = {name: 1e-4 if name.startswith("nbdense") else 1e-3 for name in PEERS}
    loops = {name: seconds[name] for name in PEERS if PEERS[name].loop} | {EMPTY: 1e-6, ALLOCATING: 2e-6}
    run = {"seconds": 2.0, "epochs": 3, "accuracy": 0.9751, "compile_s": 0.1}
    return {
        "machine": {
            "cpu": "a CPU", "llvm_cpu": "any", "cores": 2, "vector_bytes": 32, "system": "any", "python": "3.11",
            "date": "2000-01-01", "versions": {"numpy": "1"},
        },
        "training": [
            row(name, seconds[name], case=case) for case in CASES for name in PEERS if PEERS[name].training
        ],
        "inference": [
            row(name, seconds[name], case=case, batch=batch)
            for case in CASES
            for batch in CASES[case].predict
            for name in PEERS
            if PEERS[name].inference
        ] + [row("nbdense", 9e-6, 1, case="tab_s", batch=1)],
        "int8": [
            row(name, 2e-4 if name == "nbdense" else seconds[name], case=case, batch=batch)
            for case in CASES
            for batch in CASES[case].predict
            for name in PEERS
            if PEERS[name].int8
        ],
        "sparse": [
            row(name, seconds[name], case=case, pattern=pattern, batch=batch)
            for case in SPARSE_CASES
            for pattern in PATTERNS
            for batch in SPARSE_BATCHES
            for name in PEERS
            if PEERS[name].sparse
        ],
        "loops": [
            row(name, loops[name], 1, case=case)
            for case in LOOPS
            for name in loops
            if case == "online" or name != "nbdense_learn_one"
        ],
        "accuracy": [{"library": "nbdense", "threads": 2, "runs": [run], **run}],
        "busy": [
            {"case": case, "busy": busy, "default_s": 1.5 + 2.1 * busy, "one_s": 3.0, "turns_s": {}}
            for case in CASES for busy in (0, 1)
        ],
        "start": {
            "import_numba_s": 0.3, "import_nbdense_s": 0.03, "import_models_s": 0.33, "warm_s": 1.0, "cold_s": 9.0,
            "compile_s": 8.0,
        },
        "failures": [],
    }  # fmt: skip


def test_every_target_is_about_a_figure(results):
    found = report.figures(results)
    assert [target.figure for target in TARGETS if target.figure not in found] == []
    assert len({target.figure for target in TARGETS}) == len(TARGETS)
    assert found["training/tab_s/2 threads/times faster than torch"] == pytest.approx(10)
    assert found["int8/mnist, batch 1024/2 threads/times faster than onnxruntime"] == pytest.approx(10)
    assert found["int8/wide, batch 1024/2 threads/times faster than nbdense in float32"] == pytest.approx(2)
    # The faster of the dense ones counts: nbdense's own.
    assert found["sparse/wide, 90%, batch 1024/2 threads/times faster than dense"] == pytest.approx(1)
    loop = "loops/tab_s/1 thread/"
    assert found[loop + "train_step beyond 1.05 steps of fit, empty njit calls"] == pytest.approx(-5)
    assert found[loop + "own_loop beyond a step of fit, jitted JAX steps"] == pytest.approx(0)
    assert found[loop + "predict of a row, njit calls with an array allocated"] == pytest.approx(4.5)
    assert found["loops/online/1 thread/times faster than jax_loop"] == pytest.approx(10)
    assert found["loops/online/1 thread/learn_one, times faster than torch_loop"] == pytest.approx(10)
    assert found["busy/wide/times as long as with OMP_NUM_THREADS=1"] == pytest.approx(1.2)
    assert found["start/import nbdense.models, times import numba"] == pytest.approx(1.1)


def test_verdicts(results):
    said = report.verdicts(results).splitlines()
    by_figure = {line[:81].strip(): line for line in said}
    assert by_figure["training/tab_m/2 threads/times faster than torch"].endswith("  met")
    assert by_figure["training/tab_s/2 threads/times faster than torch"].endswith("NOT MET")
    assert by_figure["start/compile with a cold cache, s"].endswith("  met")
    nothing = {key: [] for key in ("training", "inference", "accuracy", "failures")}
    assert report.verdicts({**nothing, "start": {}}).count("not measured") == len(TARGETS)


def test_share_counts_the_products_of_a_step():
    # Two products for the first layer, whose input has no gradient, three for the others.
    assert CASES["wide"].step_operations == 2 * 256 * (2 * 784 * 512 + 3 * (512 * 512 + 512 * 10))
    of_limit = row("nbdense", CASES["wide"].step_operations / 75e9, case="wide")
    assert report.share_of_limit(of_limit) == pytest.approx(0.75)


def test_the_faster_of_onnxruntimes_forms_counts(results):
    for found in results["int8"]:
        if found["library"] == "onnxruntime_uint8":
            found["each_s"] = 3e-4
    assert report.figures(results)["int8/tab_s, batch 1/2 threads/times faster than onnxruntime"] == pytest.approx(3)
    assert "| 20-64-64-2 | 1 | 2 | 100 | 1,000 (10.00x) | 300 (3.00x) | 200 (2.00x) |" in report.render_int8(results)


def test_results_from_before_int8_still_render(results):
    del results["int8"], results["sparse"]
    blocks = report.blocks([results])
    assert blocks["int8"] == blocks["sparse"] == "" and "| 20-64-64-2 | 32 |" in blocks["training"]
    assert (
        sum("int8/" in line and line.endswith("not measured") for line in report.verdicts(results).splitlines()) == 10
    )


def test_results_from_before_loops_still_render(results):
    del results["loops"]
    assert report.blocks([results])["loops"] == ""
    said = report.verdicts(results).splitlines()
    assert sum(line.startswith("loops/") and line.endswith("not measured") for line in said) == 8


def test_loops_of_ones_own(results):
    said = report.render_loops(results)
    assert "| fit | train_step | train_on_batch | forward, backward, apply_gradients | learn_one |" in said
    assert (
        "| 4-64-64-2 | 1 | 1 | 100 (1.00x) | 100 | 100 (1.00x) | 100 (1.00x) | 100 (1.00x) | 1,000 (10.00x) |" in said
    )
    assert "| 20-64-64-2 | 32 | 1 | 100 (1.00x) | 100 | 100 (1.00x) | 100 (1.00x) | - | 1,000 (10.00x) |" in said
    assert "an array 2.0, and `predict` of one row of 20-64-64-2 9.0; microseconds too" in said


def test_beside_a_busy_process(results):
    said = report.render_busy(results)
    assert "| 784-512-512-10 | 256 | 0 | 3.00 | 1.50 (0.50x) |" in said
    assert "| 784-512-512-10 | 256 | 1 | 3.00 | 3.60 (1.20x) |" in said
    del results["busy"]
    assert report.blocks([results])["busy"] == ""


def test_busy_processes_are_busy_until_the_block_is_left():
    with pytest.raises(KeyError), busy.busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
        raise KeyError
    assert None not in [process.poll() for process in processes]


def test_one_part_goes_into_the_rest(results):
    results["failures"] = ["training: torch: wrong", "int8: nbdense_int8: wrong"]
    new = {
        "machine": {"date": "2000-02-02", "commit": "abc"},
        "int8": [row("nbdense_int8", 1.0, case="wide", batch=1)],
        "failures": [],
    }
    both = measure.merged(results, new, ("int8",))
    assert both["int8"] == new["int8"] and both["training"] == results["training"]
    assert both["failures"] == ["training: torch: wrong"]
    assert "Measured 2000-01-01, int8 2000-02-02 at abc, by" in report.render_machine(both)


def test_results_of_another_machine_stay_apart(results, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["--only", "int8", "--json", str(path)])
    assert "was measured on another machine (cpu: a CPU, and here" in capsys.readouterr().err
    assert json.loads(path.read_text(encoding="utf-8")) == results


def test_another_kind_of_cpu_adds_to_every_table(results, tmp_path, monkeypatch):
    other = json.loads(json.dumps(results))
    other["machine"] |= {"cpu": "another CPU", "llvm_cpu": "other", "commit": "abcdef"}
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    page = tmp_path / "README.md"
    page.write_text("".join(f"<!-- benchmark: {name} -->\n<!-- /benchmark -->\n" for name in report.RENDERERS))
    (tmp_path / "any.json").write_text(json.dumps(results), encoding="utf-8")
    (tmp_path / "quantization.json").write_text("{}", encoding="utf-8")
    main(["--pages"])
    alone = page.read_text(encoding="utf-8")
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    main(["--pages"])
    both = page.read_text(encoding="utf-8")
    assert alone.count("**a CPU** (any, 2 cores)") == both.count("**a CPU** (any, 2 cores)") == len(report.RENDERERS)
    assert both.count("**another CPU** (other, 2 cores)") == len(report.RENDERERS)
    assert "Measured 2000-01-01 at abcdef, by `make bench` on 2 cores of another CPU" in both
    assert [line for line in alone.splitlines() if line not in both] == []


def test_reference_agrees_with_the_tests_own():
    """Two independent references: neither shares code with nbdense, nor with the other."""
    widths = (5, 7, 4)
    (x, y), weights = cases.make_rows(widths, 9), cases.make_weights(widths)
    names = ("relu", "softmax")
    layers = [(k.astype(float), b.astype(float), name) for (k, b), name in zip(weights, names, strict=True)]
    probabilities = naive.mlp_forward(x.astype(float), layers)
    np.testing.assert_allclose(reference.predict(x, weights), probabilities, atol=1e-6)
    loss = naive.sparse_categorical_crossentropy(probabilities, y[:, None]).mean()
    assert reference.first_step(x, y, weights)[0] == pytest.approx(loss)


def test_rows_can_be_learned():
    x, y = cases.make_rows((20, 64, 64, 2), 2000)
    assert x.dtype == np.float32 and set(y) == {0, 1}
    np.testing.assert_array_equal(x, cases.make_rows((20, 64, 64, 2), 2000)[0])


class Wrong:
    """A worker whose predictions are off by more than the tolerance."""

    library = "wrong"

    def ask(self, op, case, batch):
        x, _ = cases.make_rows(CASES[case].widths, batch)
        exact = reference.predict(x, cases.make_weights(CASES[case].widths))
        return {"predictions": exact + 2 * cases.TOLERANCE, "first_s": 0.0}


def test_what_is_wrong_is_not_timed():
    with pytest.raises(CheckError, match="wrong, tab_s, batch 3: differs from the reference by 0.0002"):
        check_inference(Wrong(), CASES["tab_s"], 3)


def test_rows_and_settings():
    assert set(Settings(("tab_s",), ("nbdense",)).threads) == {1, 2}
    assert replace(TARGETS[0], bound=2).met(2) and not replace(TARGETS[0], bound=2, at_most=True).met(3)


def test_a_quick_run_works(tmp_path, capfd):
    """Workers, checks, turns and report: the whole way, on the smallest case."""
    path = tmp_path / "new" / "results.json"
    assert main(["--quick", "--threads", "1", "--libraries", ",".join(LIBRARIES), "--json", str(path)]) == 0
    results = json.loads(path.read_text(encoding="utf-8"))
    assert {r["library"] for r in results["training"]} == {"nbdense", "sklearn"}
    assert {r["library"] for r in results["inference"]} == {"nbdense", "sklearn", "numpy"}
    assert {r["library"] for r in results["int8"]} == {"nbdense", "nbdense_int8", "onnxruntime_int8"}
    assert {r["library"] for r in results["loops"]} == {"nbdense", *OUR_LOOPS, EMPTY, ALLOCATING}
    assert {r["case"] for r in results["loops"]} == set(LOOPS)
    assert {r["case"] for r in results["loops"] if r["library"] == "nbdense_learn_one"} == {"online"}
    assert [(r["case"], r["busy"]) for r in results["busy"]] == [("tab_s", 0), ("tab_s", 1)]
    assert all(0 < r[setting] == np.median(r["turns_s"][setting]) for r in results["busy"] for setting in r["turns_s"])
    checked = results["training"] + results["inference"] + results["loops"]
    assert all(r["difference"] <= cases.TOLERANCE for r in checked)
    assert all(0 < r["difference"] <= cases.INT8_TOLERANCE for r in results["int8"])
    assert all(r["each_s"] > 0 and r["limit_gflops"] > 0 for r in results["training"])
    said = capfd.readouterr().out
    assert "| 20-64-64-2 | 32 | 1 |" in said and "times faster than sklearn" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--quick", "--publish"],
        ["--json", "results.json", "--publish"],
        ["--only", "all"],
        ["--cases", "none"],
        ["--libraries", "pandas"],
    ],
)
def test_command_line_refuses(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_the_least_weights(name):
    """Half of the neurons: in the second network nothing reaches them, and `narrowed` computes the same without."""
    pattern, weights = PATTERNS[name], make_weights((48, 32, 32, 10))
    masked = pattern.masked(weights)
    for (kernel, _), (kept, _) in zip(weights, masked, strict=True):
        np.testing.assert_array_equal(kept[kept != 0], kernel[kept != 0])
    x = make_rows((48, 32, 32, 10), 9)[0]
    slim = narrowed(masked)
    np.testing.assert_allclose(reference.predict(x, slim), reference.predict(x, masked), rtol=1e-5, atol=1e-7)
    if pattern.neurons:
        assert [kernel.shape for kernel, _ in slim] == [(48, 16), (16, 16), (16, 10)]
    else:
        assert slim is masked
        high, wide = pattern.block
        zeros = [1 - np.count_nonzero(kernel) / kernel.size for kernel, _ in masked[:2]]
        np.testing.assert_allclose(zeros, pattern.share, atol=high * wide / 1024)
