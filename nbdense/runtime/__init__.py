"""Prediction with NumPy alone: model files, float and quantized, on machines that have neither numba nor a compiler.

It imports NumPy and safetensors and nothing else, and is a distribution of its own besides: ``nbdense-runtime``, for a
Raspberry Pi, a phone's Python or a container that is to stay small. Integers are those of `nbdense.quant`, bit for bit;
floats agree to a few units in the last place.

    rounding.py       from accumulators to the next layer's integers, in each of the roundings
    activations.py    a formula in NumPy for every activation of files
    floats.py         steps that compute in floats
    integers.py       steps that compute in integers
    program.py        steps one after the other, and what quantizes and dequantizes between them
    sequential.py     the program of a file that `Sequential.save` wrote
    quantized.py      the program of a file that `QuantizedModel.save` wrote; settings.py, checks.py its parts
    sparse.py         the program of a file that `SparseModel.save` wrote
    model.py          load_model(), Model
"""

from nbdense.files import FileFormatError as FileFormatError
from nbdense.runtime.model import Model as Model
from nbdense.runtime.model import load_model as load_model
