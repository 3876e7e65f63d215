"""Stand-ins for models of torch, Keras and Stable-Baselines3, made of tests/golden/frameworks.npz.

They are no such models: objects of classes with the same names, with the attributes that nbdense reads. What they
compute is in the file beside them.
"""

import sys
import types

import numpy as np


def standin(objects, arrays, monkeypatch):
    """The model that a table of objects describes; torch.fx, where one of them needs it, is a stand-in too."""
    made = [_bare(entry) for entry in objects]

    def value_of(value):
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind in ("list", "tuple"):
            return (list if kind == "list" else tuple)(value_of(item) for item in inner)
        if kind == "dict":
            return {key: value_of(item) for key, item in inner.items()}
        if kind == "array":
            return arrays[str(inner)]
        if kind == "function":
            return _function(*inner)
        return made[inner]

    for thing, entry in zip(made, objects, strict=True):
        for name, value in entry["attributes"].items():
            object.__setattr__(thing, name, value_of(value))
        if "nodes" in entry:
            thing.recorded = entry["nodes"]
    monkeypatch.setitem(sys.modules, "torch", _torch())
    return made[0]


def _bare(entry):
    """An object of a class of that name, below the library's; with a method of its own where it had one."""
    bases = ()
    if entry["base"] is not None:
        module, name = entry["base"]
        bases = (type(name, (), {"__module__": module, "forward": _method(), "call": _method()}),)
    own = {"forward": _method(), "call": _method()} if entry["own"] else {}
    if bases and entry["base"] == [entry["module"], entry["name"]]:
        return bases[0]()
    return type(entry["name"], bases, {"__module__": entry["module"], **own})()


def _method():
    def method(self, *args):
        raise AssertionError("a stand-in computes nothing")

    return method


def _function(module, name):
    def function(*args):
        raise AssertionError("a stand-in computes nothing")

    function.__module__, function.__name__ = module, name
    return function


def _torch():
    """A torch that has nothing but fx.symbolic_trace, which gives what the real one recorded."""

    class Node:
        def __init__(self, op, target):
            self.op, self.target = op, _function("torch", target) if op == "call_function" else target
            self.name = target

    def symbolic_trace(module):
        if isinstance(module.recorded, str):
            raise RuntimeError(module.recorded)
        nodes = [Node(entry["op"], entry["target"]) for entry in module.recorded]

        def argument(value):
            return nodes[value["node"]] if isinstance(value, dict) else value

        for node, entry in zip(nodes, module.recorded, strict=True):
            node.args = tuple(argument(value) for value in entry["args"])
            node.kwargs = {key: argument(value) for key, value in entry["kwargs"].items()}
        return types.SimpleNamespace(graph=types.SimpleNamespace(nodes=nodes))

    module = types.ModuleType("torch")
    module.fx = types.SimpleNamespace(symbolic_trace=symbolic_trace)
    return module


def arrays_of(golden, name):
    """The arrays of a case, by what follows its name."""
    return {key.removeprefix(f"{name}/"): np.array(golden[key]) for key in golden.files if key.startswith(f"{name}/")}
