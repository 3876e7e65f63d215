"""Write frameworks.npz: models of torch, Keras and Stable-Baselines3, attribute by attribute, and their outputs.

Run from the repository's root where these are installed: python -m tests.golden.make_frameworks

tests/export/frameworks/standins.py makes objects of the same classes' names and attributes of it. ``plain`` is JSON: of
each case its function, options and words, and a table of objects, the first of which is the model.
"""

import io
import json
from pathlib import Path

import numpy as np

from tests.export.frameworks.cases import cases

# All attributes that nbdense reads.
ATTRIBUTES = [
    *("_modules", "weight", "bias", "running_mean", "running_var", "eps", "momentum", "normalized_shape", "start_dim"),
    *("end_dim", "dim", "alpha", "approximate", "negative_slope", "lower", "upper", "min_val", "max_val", "lambd"),
    *("beta", "threshold", "value", "p", "name", "layers", "inputs", "outputs", "built", "input_shape", "activation"),
    *(
        "use_bias",
        "kernel",
        "axis",
        "max_value",
        "rate",
        "scale",
        "offset",
        "mean",
        "variance",
        "invert",
        "rms_scaling",
    ),
    *("epsilon", "trainable", "gamma", "moving_mean", "moving_variance", "_keras_history", "_inbound_nodes"),
    *("input_tensors", "observation_space", "shape", "dtype", "mlp_extractor", "policy_net", "value_net"),
    *("pi_features_extractor", "vf_features_extractor", "action_net", "squash_output", "q_net", "features_extractor"),
    *("actor", "latent_pi", "mu", "critic", "q_networks"),
]
METHODS = ("forward", "call")
LIBRARIES = ("torch.nn.", "keras.", "stable_baselines3.", "gymnasium.")


class Table:
    """Objects and arrays, each once."""

    def __init__(self):
        self.objects, self.arrays, self._places, self._kept = [], [], {}, []

    def described(self, value):
        """Return what JSON can hold of a value; arrays and objects by their places."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, list | tuple):
            return {"list" if isinstance(value, list) else "tuple": [self.described(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": {key: self.described(item) for key, item in value.items()}}
        if isinstance(value, np.dtype):
            return str(value)
        array = as_array(value)
        if array is not None:
            self.arrays.append(array)
            return {"array": len(self.arrays) - 1}
        if type(value).__name__ == "function":
            return {"function": [value.__module__, value.__name__]}
        return {"object": self.place(value)}

    def place(self, thing):
        if id(thing) not in self._places:
            self._places[id(thing)] = len(self.objects)
            self._kept.append(thing)
            entry = {}
            self.objects.append(entry)
            entry |= self._entry(thing)
        return self._places[id(thing)]

    def _entry(self, thing):
        kind = type(thing)
        base = next((base for base in kind.__mro__ if f"{base.__module__}.".startswith(LIBRARIES)), None)
        entry = {"name": kind.__name__, "module": kind.__module__, "base": None, "own": False}
        if base is not None:
            entry["base"] = [base.__module__, base.__name__]
            entry["own"] = any(getattr(kind, name, None) is not getattr(base, name, None) for name in METHODS)
        entry["attributes"] = {}
        for name in ATTRIBUTES:
            value = getattr(thing, name, entry)
            if value is not entry and not callable_method(value):
                entry["attributes"][name] = self.described(value)
        if entry["own"] and base.__module__.startswith("torch"):
            entry["nodes"] = self._nodes(thing)
        return entry

    def _nodes(self, module):
        """Return what torch.fx records of a module's forward, or what it says instead."""
        from torch import fx

        try:
            nodes = list(fx.symbolic_trace(module).graph.nodes)
        except Exception as error:
            return str(error)
        numbers = {node: number for number, node in enumerate(nodes)}

        def plain(value):
            return {"node": numbers[value]} if isinstance(value, fx.Node) else value

        return [
            {
                "op": node.op,
                "target": node.target if isinstance(node.target, str) else node.target.__name__,
                "args": [plain(value) for value in node.args],
                "kwargs": {key: plain(value) for key, value in node.kwargs.items()},
            }
            for node in nodes
        ]


def callable_method(value):
    return type(value).__name__ in ("method", "builtin_function_or_method")


def as_array(value):
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if type(value).__name__ in ("Variable", "ArrayImpl") or "Variable" in type(value).__name__:
        return np.asarray(value)
    return None


def main():
    plain, arrays = {}, {}
    for name, case in cases().items():
        table = Table()
        table.place(case.model)
        arrays |= {f"{name}/{number}": array for number, array in enumerate(table.arrays)}
        if case.x is not None:
            arrays |= {f"{name}/x": case.x, f"{name}/y": case.y}
        plain[name] = {
            "function": case.function,
            "options": case.options,
            "words": case.words,
            "objects": table.objects,
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, plain=np.array(json.dumps(plain, sort_keys=True)), **arrays)
    Path(__file__).with_name("frameworks.npz").write_bytes(buffer.getvalue())
    print(len(plain), "cases,", len(buffer.getvalue()), "bytes")


if __name__ == "__main__":
    main()
