"""Writes onnx/keras_*.onnx: small Keras networks by tf2onnx, with what TensorFlow computes of them.

    python tests/golden/make_onnx_keras.py

Run it where tensorflow and tf2onnx are installed. Beside NAME.onnx there is NAME.npz, with ``x`` and ``y``.
"""

from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

FOLDER = Path(__file__).parent / "onnx"
ACTIVATIONS = ["relu", "relu6", "sigmoid", "tanh", "elu", "selu", "silu", "mish", "softplus", "hard_sigmoid"]
ACTIVATIONS += ["hard_silu", "leaky_relu"]


def residual():
    start = keras.Input((6,))
    x = layers.Dense(5)(start)
    x = layers.Add()([x, layers.Dense(5, "tanh")(layers.LayerNormalization()(x))])
    return keras.Model(start, layers.Dense(3, "softmax")(x))


def activations():
    chain = [keras.Input((4,))]
    for name in ACTIVATIONS:
        chain += [layers.Dense(4, activation=name)]
    gelu = layers.Activation(
        lambda x: keras.activations.gelu(x, approximate=True)
    )  # the other's Erfc is no ONNX operator
    return keras.Sequential([*chain, layers.Dense(4), gelu, layers.Dense(2)])


NETWORKS = {
    "mlp": lambda: keras.Sequential(
        [keras.Input((5,)), layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(3, "softmax")]
    ),
    "norms": lambda: keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Flatten(),
            layers.Dense(7),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.LayerNormalization(),
            layers.Dense(1, "sigmoid"),
        ]
    ),
    "activations": activations,
    "residual": residual,
    "positions": lambda: keras.Sequential(
        [keras.Input((3, 4)), layers.Dense(5, "relu"), layers.LayerNormalization(), layers.Dense(2)]
    ),
    "standardised": lambda: keras.Sequential(
        [keras.Input((3,)), layers.Rescaling(1 / 255, offset=-0.5), layers.Dense(4)]
    ),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, build in NETWORKS.items():
        generator = np.random.default_rng(5)
        model = build()
        for weight in model.weights:
            low = 0.1 if "variance" in weight.path else -0.6
            weight.assign(generator.uniform(low, 0.8, weight.shape).astype(np.float32))
        x = generator.standard_normal((7, *model.input_shape[1:])).astype(np.float32)
        if name == "standardised":
            x = np.abs(100 * x)
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="x")]
        function = tf.function(lambda x, model=model: model(x, training=False), input_signature=signature)
        proto, _ = tf2onnx.convert.from_function(function, signature, opset=17)
        proto.doc_string = proto.graph.doc_string = ""
        del proto.graph.value_info[:]
        target = FOLDER / f"keras_{name}.onnx"
        onnx.save(proto, target)
        np.savez(target.with_suffix(".npz"), x=x, y=function(x).numpy())
        print(target.name, target.stat().st_size)


if __name__ == "__main__":
    main()
