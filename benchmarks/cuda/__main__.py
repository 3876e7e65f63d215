"""The CUDA engine beside torch on the same GPU: ``make bench-cuda``, on a machine that has one.

All data is on the device before a clock starts. A training step of nbdense's is what ``Workspace.run`` takes for many,
the copies of parameters to the device and back included.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES, LEARNING_RATE, Case, make_rows, make_weights
from nbdense import backends, set_device
from nbdense.layers import Dense, Input
from nbdense.models import Sequential
from nbdense.optimizers import Adam
from nbdense.training import phases

NARROW, PREDICT_ROWS = (64, 64, 64, 64), 1_000_000
# The last is narrow enough for the kernel of whole steps.
TRAINING = [
    dataclasses.replace(CASES["tab_m"], batch=4096),
    dataclasses.replace(CASES["mnist"], batch=1024),
    Case("narrow", NARROW, batch=4096, steps=16),
]
STEPS, REPEATS = 400, 7


def make_model(widths: tuple[int, ...], softmax: bool) -> Sequential:
    """Return a relu network with the benchmarks' weights."""
    last = len(widths) - 2
    model = Sequential([Input((widths[0],))])
    for k, units in enumerate(widths[1:]):
        model.add(Dense(units, ("softmax" if softmax else "linear") if k == last else "relu"))
    model.compile(Adam(LEARNING_RATE), "sparse_categorical_crossentropy" if softmax else "mse")
    model.set_weights([array for pair in make_weights(widths) for array in pair])
    return model


def torch_model(widths: tuple[int, ...]) -> Any:
    """Return the same network in torch, without its softmax."""
    import torch

    layers: list[Any] = []
    for kernel, bias in make_weights(widths):
        linear = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).cuda()


def median_seconds(call: Callable[[], None], repeats: int = REPEATS) -> float:
    """Return the median time of a call that ends with the device idle."""
    import torch

    call()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def ceilings() -> dict[str, float]:
    """Return what the card does at most: bytes a second of a copy, float32 operations a second of a large product."""
    import torch

    big = torch.randn(1 << 28, device="cuda")
    other = torch.empty_like(big)
    copy = median_seconds(lambda: [other.copy_(big) for _ in range(10)] and None) / 10
    a, b = (torch.randn(8192, 8192, device="cuda") for _ in range(2))
    product = median_seconds(lambda: [torch.mm(a, b) for _ in range(3)] and None) / 3
    return {"bytes": 2 * big.nbytes / copy, "flops": 2 * 8192**3 / product}


def predict_times() -> dict[str, float]:
    """Return seconds to predict by each library, after a look at their outputs."""
    import torch
    from numba import cuda

    from nbdense.backends.cuda.inference import FusedPredictor, predictor

    model = make_model(NARROW, softmax=False)
    x = np.random.default_rng(0).standard_normal((PREDICT_ROWS, NARROW[0]), np.float32)
    ours = predictor(model.network, len(x))
    assert isinstance(ours, FusedPredictor)
    ours.stream.write(ours._params, model.network.params)
    there, out = cuda.to_device(x.reshape(-1)), cuda.device_array(PREDICT_ROWS * NARROW[-1], np.float32)

    def run() -> None:
        for _ in range(10):
            ours.run(there, out)
        ours.stream.stream.synchronize()

    times = {"nbdense": median_seconds(run) / 10}
    theirs, rows = torch_model(NARROW), torch.from_numpy(x).cuda()
    with torch.inference_mode():
        gap = np.abs(out.copy_to_host().reshape(-1, NARROW[-1]) - theirs(rows).cpu().numpy()).max()
        assert gap < 1e-4, gap
        times["torch eager"] = median_seconds(lambda: [theirs(rows) for _ in range(10)] and None) / 10
        compiled = torch.compile(theirs)
        times["torch.compile"] = median_seconds(lambda: [compiled(rows) for _ in range(10)] and None) / 10
    return times


def training_times(case: Case) -> dict[str, float]:
    """Return seconds a training step by each library, shuffled rows gathered on the device."""
    import torch

    widths, batch = case.widths, case.batch
    x, y = make_rows(widths, 16 * batch)
    model = make_model(widths, softmax=True)
    state = model.train_state
    objective, _ = state.objective()
    workspace = backends.current().workspace(state.network, objective, batch, state.vectors)
    data, table = state.data(x, y), phases.training(state.network.layers)

    def ours() -> None:
        for epoch in range(STEPS // 16):
            workspace.run(table, data, count=16, epoch=epoch, shuffle=True, optimizer=model.optimizer)

    losses = [workspace.run(table, data, count=16, epoch=e, shuffle=True, optimizer=model.optimizer) for e in (0, 1)]
    first, last = (float(totals[-1, 0]) / batch for _, totals in losses)
    assert last < first, (first, last)
    times = {"nbdense": median_seconds(ours) / (STEPS // 16 * 16)}
    rows, classes = torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda()
    for label, wrap in (("torch eager", lambda f: f), ("torch.compile", torch.compile)):
        network = torch_model(widths)
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        loss_of = wrap(lambda a, b, net=network: torch.nn.functional.cross_entropy(net(a), b))

        def theirs(loss_of: Any = loss_of, optimizer: Any = optimizer) -> None:
            for _ in range(STEPS // 16):
                order = torch.randperm(len(rows), device="cuda")
                for k in range(16):
                    chosen = order[k * batch : (k + 1) * batch]
                    optimizer.zero_grad()
                    loss_of(rows[chosen], classes[chosen]).backward()
                    optimizer.step()

        times[label] = median_seconds(theirs) / (STEPS // 16 * 16)
    return times


def main() -> None:
    """Print the figures, and write them to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    set_device("cuda")
    most = ceilings()
    results: dict[str, Any] = {"device": backends.current().description, "ceilings": most}
    print(results)
    name = "predict " + "-".join(map(str, NARROW))
    flops = 2 * PREDICT_ROWS * sum(a * b for a, b in itertools.pairwise(NARROW))
    moved = 4 * PREDICT_ROWS * (NARROW[0] + NARROW[-1])
    cases: dict[str, tuple[Callable[[], dict[str, float]], float, float]] = {name: (predict_times, flops, moved)}
    for case in TRAINING:
        label = f"train {case.name} ({case.shape}), batch {case.batch}"
        cases[label] = (lambda case=case: training_times(case), case.step_operations, 0.0)
    for label, (measure, operations, traffic) in cases.items():
        if options.only in label:
            times = measure()
            shares = {"FLOP limit": operations / most["flops"] / times["nbdense"]}
            shares["bandwidth"] = traffic / most["bytes"] / times["nbdense"]
            results[label] = {"seconds": times, "shares": shares}
            print(label, {k: f"{v * 1e6:.1f} us" for k, v in times.items()}, {k: f"{v:.2f}" for k, v in shares.items()})
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
