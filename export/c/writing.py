"""The texts of a program: its source and its header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from nbdense._version import __version__
from nbdense.export.c.costs.costs import Estimate, LayerCost, cost_table, estimated
from nbdense.export.c.kernels import KERNELS
from nbdense.export.c.program import INPUT, Program
from nbdense.export.c.source import Source, numbers, real
from nbdense.export.c.targets import TARGETS, Target

Golden = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """The form in which a program is written.

    Attributes
    ----------
    name : str
        What its functions begin with.
    target : str
        The processor: a key of TARGETS.
    memory : str
        "static", or "caller": functions take the memory that they work in.
    class_names : tuple of str
        What the outputs stand for; empty where that is not known.
    golden : (ndarray, ndarray)
        Rows of inputs and the outputs that belong to them, for the self-test.
    header : str
        The header's file name.
    """

    name: str
    target: str
    memory: str
    class_names: tuple[str, ...]
    golden: Golden
    header: str

    @property
    def processor(self) -> Target:
        """The processor."""
        return TARGETS[self.target]


@dataclass(frozen=True)
class Texts:
    """A program's files, and what its layers cost.

    Attributes
    ----------
    source, header : str
        The texts.
    costs : tuple of LayerCost
        One a layer.
    features : dict of str to int
        How often there is what its code is made of: kernels, the parts that some have in some programs, calls of
        layers, and loops about these.
    estimate : Estimate or None
        The costs of all, where they were measured.
    """

    source: str
    header: str
    costs: tuple[LayerCost, ...]
    features: dict[str, int]
    estimate: Estimate | None


def write(program: Program, options: Options) -> Texts:
    """Write a program.

    Parameters
    ----------
    program : Program
        The program.
    options : Options
        How.
    """
    layout = options.processor.layout
    own = {
        "NAME": options.name.upper(),
        "dense": layout.kernel_with_rest if program.parts.get("rest") else layout.kernel,
    }
    source = Source(options.name, options.processor, program.value, {**program.parts, **own})
    costs = []
    for number, call in enumerate(program.calls):
        before = source.flash
        places = [_place(program, tensor) for tensor in call.reads]
        source.call((), f"/* {_comment(call.name)} */")
        call.step.write(source, str(number), places, _place(program, call.writes))
        size = program.sizes[call.writes] * _element(program)
        costs.append(LayerCost(call.name, call.title, call.multiply_adds, source.flash - before, size))
    values = "" if program.value == "float" else _values_function(program, options, source)
    features = _features(program, source)
    estimate = estimated(program, options.target, features, costs)
    text = _report(program, options, costs, estimate) + "\n" + _source(program, options, source, values)
    return Texts(text, _header(program, options, source), tuple(costs), features, estimate)


def _features(program: Program, source: Source) -> dict[str, int]:
    members = program.parts.get("pointers", "") + program.parts.get("numbers", "")
    parts = [part for part in ("shifts", "table", "low") if part in members]
    # A layer's function has the one that requantises in it.
    parts += [
        f"{kernel}, {program.parts['requantised']}"
        for kernel in source.kernels()
        if "= requantised(" in KERNELS[kernel].text
    ]
    loops = sum(call.startswith("for") for call in source.calls) + (program.columns < program.sizes[program.output])
    return {
        **dict.fromkeys(["base", *source.kernels(), *parts, program.value], 1),
        "calls": len(program.calls),
        "loops": loops,
    }


def _element(program: Program) -> int:
    return 4 if program.value == "float" else 1


def _place(program: Program, tensor: int) -> str:
    if tensor == INPUT:
        return "input"
    return "output" if tensor == program.output else f"memory + {program.places[tensor]}"


def _comment(text: str) -> str:
    """Return a text that cannot end a comment, or be none of ASCII."""
    clean = text.encode("ascii", "replace").decode().replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
    return "".join(character if character.isprintable() else " " for character in clean).replace("\\", "/")


def _string(text: str) -> str:
    """Return a text as a string of C: what is no plain ASCII in octal, byte by byte of UTF-8."""
    plain = "".join(chr(code) for code in range(32, 127) if chr(code) not in '"\\?')
    return '"' + "".join(chr(byte) if chr(byte) in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


# -- the source ------------------------------------------------------------------------------------------------------


def _source(program: Program, options: Options, source: Source, values: str) -> str:
    labels = _labels(options)
    functions, headers = source.functions()
    return "\n".join(
        part
        for part in [
            f'#include "{options.header}"\n' + "".join(f"#include <{header}>\n" for header in sorted(headers)),
            *(macro for name, macro in _MACROS.items() if name in "".join([*functions, *source.constants])),
            *functions,
            *source.constants,
            *source.structures(),
            labels,
            _predict_function(program, options, source),
            values,
            _self_test(program, options),
        ]
        if part
    )


def _attribute(name: str, attribute: str) -> str:
    return f"#if defined(__GNUC__)\n#define {name} __attribute__(({attribute}))\n#else\n#define {name}\n#endif\n"


_MACROS = {
    name: _attribute(name, attribute)
    for name, attribute in (("ALIGNED", "aligned(4)"), ("COLD", "cold, noinline"), ("NOINLINE", "noinline"))
}


def _report(program: Program, options: Options, costs: Sequence[LayerCost], estimate: Estimate | None) -> str:
    lines = cost_table(costs, program.memory * _element(program)).splitlines()
    table = "".join(f" *   {_comment(line)}\n" for line in lines)
    total = "" if estimate is None else f" * Estimated with all code, for integers at both ends:\n * {estimate}\n *\n"
    return (
        f"/* Written by nbdense {__version__} for {options.processor.title}. Do not edit.\n *\n{total}"
        f" * Bytes of constants in flash, and of each layer's output in RAM; in the last row those that\n"
        f" * are needed at one time, beside input and output.\n *\n{table} */\n"
    )


def _labels(options: Options) -> str:
    if not options.class_names:
        return ""
    names = "".join(f"    {_string(name)},\n" for name in options.class_names)
    return f"const char *const {options.name}_labels[{len(options.class_names)}] = {{\n{names}}};\n"


def _parameters(program: Program, options: Options, value: str) -> str:
    memory = f", {program.value} *memory" if options.memory == "caller" else ""
    return f"(const {value} *input, {value} *output{memory})"


def _predict_function(program: Program, options: Options, source: Source) -> str:
    static = options.memory == "static" and program.memory
    memory = f"static {program.value} memory[{program.memory}];\n\n" if static else ""
    body = "".join(f"    {call}\n" for call in source.calls)
    index = "    int32_t i;\n\n" if "i < " in body else ""
    check = "input == 0 || output == 0" + (" || memory == 0" if options.memory == "caller" else "")
    return (
        f"{memory}int {options.name}_predict{_parameters(program, options, program.value)}\n{{\n{index}"
        f"    if ({check}) {{\n        return -1;\n    }}\n{body}    return 0;\n}}\n"
    )


def _values_function(program: Program, options: Options, source: Source) -> str:
    name, upper, value = options.name, options.name.upper(), program.value
    source.need("quantized")
    n_out = program.sizes[program.output]
    softmax = ""
    if program.softmax:
        source.need("probabilities")
        rows = n_out // program.columns
        softmax = f"    probabilities(output, {n_out});\n"
        if rows > 1:
            softmax = (
                f"    for (i = 0; i < {n_out}; i += {program.columns}) {{\n"
                f"        probabilities(output + i, {program.columns});\n    }}\n"
            )
    is_caller_s, at = options.memory == "caller", program.input_place
    check = "input == 0 || output == 0" + " || memory == 0" * is_caller_s
    inner = ", memory" * is_caller_s
    place = f"    {value} *const quantities = memory + {program.memory if at is None else at};\n"
    if at is None and not is_caller_s:
        place = f"    static {value} quantities[{upper}_INPUTS];\n"
    # The output has room for its integers, one byte each, in the first quarter of its floats.
    return (
        f"int {name}_predict_values{_parameters(program, options, 'float')}\n{{\n"
        f"{place}    {value} *const integers = ({value} *)output;\n    int32_t i;\n\n"
        f"    if ({check}) {{\n        return -1;\n    }}\n"
        f"    for (i = 0; i < {upper}_INPUTS; ++i) {{\n        quantities[i] = quantized(input[i]);\n    }}\n"
        f"{_predicted(f'{name}_predict(quantities, integers{inner})', source.can_fail)}"
        f"    for (i = {upper}_OUTPUTS - 1; i >= 0; --i) {{\n"
        f"        output[i] = (float)(integers[i] - {upper}_OUTPUT_ZERO_POINT) * {upper}_OUTPUT_SCALE;\n    }}\n"
        f"{softmax}    return 0;\n}}\n"
    )


def _predicted(call: str, can_fail: bool) -> str:
    """Return the statement that predicts integers, and ends where that fails."""
    return f"    if ({call} != 0) {{\n        return -2;\n    }}\n" if can_fail else f"    {call};\n"


def _self_test(program: Program, options: Options) -> str:
    name, upper, value = options.name, options.name.upper(), program.value
    inputs, outputs = options.golden
    lines = [f"#ifdef {upper}_SELF_TEST"]
    for what, rows in (("inputs", inputs), ("outputs", outputs)):
        lines.append(f"static const {value} golden_{what}[{rows.shape[0]}][{rows.shape[1]}] = {{")
        for row in rows:
            lines += ["    {", *(f"        {line}" for line in numbers(row)), "    },"]
        lines.append("};")
    memory = ""
    if options.memory == "caller":
        lines.append(f"static {value} golden_memory[{upper}_MEMORY];")
        memory = ", golden_memory"
    differs = "golden_outputs[row][i] != output[i]"
    if value == "float":
        differs = "!(output[i] - golden_outputs[row][i] < 1e-4f && golden_outputs[row][i] - output[i] < 1e-4f)"
    lines += [
        "",
        "/* Returns how many outputs differ. */",
        "int main(void)",
        "{",
        f"    static {value} output[{upper}_OUTPUTS];",
        "    int differing = 0;",
        "    int32_t row, i;",
        "",
        f"    for (row = 0; row < {inputs.shape[0]}; ++row) {{",
        f"        {name}_predict(golden_inputs[row], output{memory});",
        f"        for (i = 0; i < {upper}_OUTPUTS; ++i) {{",
        f"            differing += {differs} ? 1 : 0;",
        "        }",
        "    }",
        "    return differing;",
        "}",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


# -- the header ------------------------------------------------------------------------------------------------------


def _header(program: Program, options: Options, source: Source) -> str:
    name, upper, value = options.name, options.name.upper(), program.value
    integers = value != "float"
    macros = {f"{upper}_INPUTS": str(program.sizes[INPUT]), f"{upper}_OUTPUTS": str(program.sizes[program.output])}
    if integers:
        for end, (scale, zero_point) in (("INPUT", program.input_format), ("OUTPUT", program.output_format)):
            macros[f"{upper}_{end}_SCALE"] = real(scale)
            macros[f"{upper}_{end}_ZERO_POINT"] = f"({zero_point})"
    if options.memory == "caller":
        macros[f"{upper}_MEMORY"] = str(max(1, program.own_memory if integers else program.memory))
    parameters = _parameters(program, options, value)
    memory = f" memory: {upper}_MEMORY elements to work in." if options.memory == "caller" else ""
    what = "integers, each standing for (integer - zero point) * scale" if integers else "real numbers"
    failure = ", -2 where CMSIS-NN reports an error" if source.can_fail else ""
    lines = [
        f"/* Written by nbdense {__version__}. Do not edit. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stdint.h>",
        "",
        *(f"#define {macro} {text}" for macro, text in macros.items()),
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"/* Predict one row of {what}. Returns 0, or -1 where a pointer is null{failure}.",
        f"   Input and output must not overlap.{memory} */",
        f"int {name}_predict{parameters};",
    ]
    if integers:
        scores = "probabilities" if program.softmax else "real numbers"
        lines += [
            "",
            f"/* The same of real numbers: quantizes the input, and gives {scores}. A NaN is taken as zero. */",
            f"int {name}_predict_values{_parameters(program, options, 'float')};",
        ]
    if options.class_names:
        lines += ["", "/* What the outputs stand for, in UTF-8. */"]
        lines.append(f"extern const char *const {name}_labels[{len(options.class_names)}];")
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "", "#endif"]
    return "\n".join(lines) + "\n"
