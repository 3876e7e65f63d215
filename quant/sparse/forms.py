"""The forms in which a dense layer can be run, and what a model's layers are run in: its choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nbdense.quant.kernels.microkernel import GROUP
from nbdense.quant.kernels.sparse_formats import Blocks, SparseKernels, blocks_of
from nbdense.quant.kernels.sparse_tiles import BLOCKS, OUTPUTS
from nbdense.quant.layers.base import Layer
from nbdense.quant.layers.float_layers import FloatLayer
from nbdense.quant.layers.integer_layers import QuantizedDense
from nbdense.quant.model.network import QuantizedNetwork

DENSE = "dense"
FLOAT_FORMS = {f"1x{width}": (1, width) for width in BLOCKS}  # inputs and outputs of a block
INTEGER_FORMS = {f"{GROUP}x{OUTPUTS}": (GROUP, OUTPUTS)}
FORMS = {**FLOAT_FORMS, **INTEGER_FORMS}

Size = Literal["few", "many"]
SIZES: tuple[Size, ...] = ("few", "many")  # of batches


@dataclass(frozen=True)
class Form:
    """Form in which a layer is run.

    Attributes
    ----------
    few, many : str
        For few rows of data a call, and for many: "dense", or the blocks of its weights, of inputs by outputs.
    """

    few: str
    many: str

    def of(self, size: Size) -> str:
        """Return that for a size of batches.

        Parameters
        ----------
        size : {"few", "many"}
        """
        return self.few if size == "few" else self.many


def forms_of(layer: Layer) -> Mapping[str, tuple[int, int]]:
    """Return the sparse forms that there are for a layer; none for one that is not dense.

    Parameters
    ----------
    layer : Layer
        A layer of a quantized network, or of one in float.
    """
    if isinstance(layer, FloatLayer) and layer.what == "dense":
        return FLOAT_FORMS
    return INTEGER_FORMS if isinstance(layer, QuantizedDense) else {}


def kernel_of(layer: Layer) -> Any:
    """Return a dense layer's kernel, (n_in, n_out).

    Parameters
    ----------
    layer : Layer
        One that has forms.
    """
    return layer.tensors["kernel"] if isinstance(layer, FloatLayer) else layer.kernel  # type: ignore[attr-defined]


def blocks_in(layer: Layer, form: str) -> Blocks:
    """Return the blocks of a layer's kernel.

    Parameters
    ----------
    layer : Layer
        One that has forms.
    form : str
        One of them.
    """
    height, width = FORMS[form]
    return blocks_of(kernel_of(layer), width, height)


def kernels(network: QuantizedNetwork, choice: Mapping[str, Form], size: Size) -> SparseKernels:
    """Return the kernels that are run without their zeros.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    choice : mapping of str to Form
        Forms of its dense layers, by name.
    size : {"few", "many"}
        The batches' size.
    """
    forms = {index: choice[layer.name].of(size) for index, layer in enumerate(network.layers) if layer.name in choice}
    blocks = {index: blocks_in(network.layers[index], form) for index, form in forms.items() if form != DENSE}
    return SparseKernels(blocks, size == "few")


def checked_choice(network: QuantizedNetwork, choice: Any, owner: str) -> dict[str, Form]:
    """Return a choice for each dense layer of a network.

    Parameters
    ----------
    network : QuantizedNetwork
        The network.
    choice : str, (str, str), or mapping of str to these
        A form for all, or by layers' names; two are for few rows and for many.
    owner : str
        What the error begins with.

    Raises
    ------
    ValueError
        If it names a layer or a form that there is not, or leaves a layer out.
    """
    dense = {layer.name: forms_of(layer) for layer in network.layers if forms_of(layer)}
    if not isinstance(choice, Mapping):
        choice = dict.fromkeys(dense, choice)
    if set(choice) != set(dense):
        raise ValueError(f"{owner}: choice must have a form for each of the layers {list(dense)}, got {list(choice)}")
    made = {}
    for name, there in dense.items():
        value = choice[name]
        if isinstance(value, Form):
            value = value.few, value.many
        pair = (value, value) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
        if len(pair) != 2 or not all(form in (DENSE, *there) for form in pair):
            allowed = ", ".join(map(repr, (DENSE, *there)))
            raise ValueError(
                f"{owner}: the form of layer {name!r} must be one of {allowed}, or two of these (for few rows and for "
                f"many), got {value!r}"
            )
        made[name] = Form(*pair)
    return made
