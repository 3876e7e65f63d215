"""Tensors of a finished graph under other names.

ONNX takes any name that is not empty, can be written as UTF-8 and is the only one of its kind among the tensors of the
graph and of all graphs inside of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import onnx


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors wherever the graph, or a graph inside of it, says their names.

    A tensor that has one of the new names and is not renamed itself makes room: it gets a "_" behind its name.

    Parameters
    ----------
    graph : GraphProto
        The graph; it is changed.
    names : mapping of str to str
        New names, which differ from each other, by the old ones.
    """
    present = {name for part in graphs_in(graph) for name in _names_in(part)}
    renamed = dict(names)
    taken = present.union(names.values())
    for name in sorted(present.intersection(names.values()).difference(names)):
        renamed[name] = free_name(name, taken)
        taken.add(renamed[name])
    for part in graphs_in(graph):
        for entry in (*part.input, *part.output, *part.value_info, *part.initializer):
            entry.name = renamed.get(entry.name, entry.name)
        for node in part.node:
            for ends in (node.input, node.output):
                ends[:] = [renamed.get(name, name) for name in ends]


def free_name(name: str, taken: Container[str]) -> str:
    """Return the name, with as many "_" behind it as make it unlike all that are taken.

    Parameters
    ----------
    name : str
        The name.
    taken : container of str
        Names that it must not be.
    """
    while name in taken:
        name += "_"
    return name


def graphs_in(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Iterate over a graph and all graphs inside of it, which are its nodes' attributes.

    Parameters
    ----------
    graph : GraphProto
        The outermost.
    """
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_in(inner)


def _names_in(graph: onnx.GraphProto) -> Iterator[str]:
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield entry.name
    for node in graph.node:
        yield from (*node.input, *node.output)
