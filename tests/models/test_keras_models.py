"""Sequential and its layers as people use Keras's: called, nested, described, with weights that are objects."""

import json

import numpy as np
import pytest

import nbdense
from nbdense.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    Input,
    InputLayer,
    LayerNormalization,
    ReLU,
    RMSNormalization,
)
from nbdense.models import Sequential, clone_model, load_model, model_from_json

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype("float32")
Y = RNG.normal(size=(20, 2)).astype("float32")


def small(**options):
    return Sequential([Input((4,)), Dense(3, "relu"), BatchNormalization(), Dense(2)], **options)


def relu_dense(x, kernel, bias):
    return np.maximum(x.astype("float64") @ kernel + bias, 0)


def test_a_model_is_called():
    model = Sequential([Dense(3, "relu"), Dense(2)])
    outputs = model(X)  # which builds it
    np.testing.assert_array_equal(outputs, model.predict(X))
    np.testing.assert_array_equal(outputs, model.predict_on_batch(X))
    kernel, bias, last, last_bias = model.get_weights()
    np.testing.assert_allclose(outputs, relu_dense(X, kernel, bias) @ last + last_bias, rtol=1e-5, atol=1e-6)


def test_calls_in_training_drop_other_elements_each_time():
    model = Sequential([Input((4,)), Dense(64, use_bias=False), Dropout(0.5)])
    drawn = np.stack([model(X, training=True) for _ in range(60)])
    assert 0.4 < (drawn == 0).mean() < 0.6
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_allclose(drawn.mean(axis=0), model(X), atol=2.0)
    np.testing.assert_array_equal(model(X), model(X, training=False))


@pytest.mark.parametrize("alone", [False, True])
def test_calls_in_training_move_running_statistics(alone):
    norm = BatchNormalization(momentum=0.9)
    called = norm if alone else Sequential([norm])
    outputs = called(X, training=True)
    mean, variance = X.mean(axis=0, dtype="float64"), X.var(axis=0, dtype="float64")
    np.testing.assert_allclose(outputs, (X - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


def test_weights_are_objects_that_are_assigned_to():
    model = small()
    names = ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]
    assert [weight.name for weight in model.weights] == names
    assert [weight.name for weight in model.non_trainable_weights] == ["moving_mean", "moving_variance"]
    assert len(model.trainable_weights) == len(model.trainable_variables) == 6
    kernel = model.layers[0].weights[0]
    assert (kernel.path, kernel.shape, kernel.dtype, kernel.trainable) == ("dense/kernel", (4, 3), "float32", True)
    kernel.assign(np.ones((4, 3)))
    np.testing.assert_array_equal(model.get_weights()[0], np.ones((4, 3)))
    kernel.assign_add(1.0)
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), np.full((4, 3), 2.0))
    np.testing.assert_array_equal(np.asarray(kernel) + 1, np.full((4, 3), 3.0))
    with pytest.raises(ValueError, match=r"shape \(4, 3\) was expected, got \(3,\)"):
        kernel.assign(np.ones(3))
    model.layers[0].trainable = False
    assert [weight.trainable for weight in model.layers[0].weights] == [False, False]
    model.compile("sgd", "mse")  # makes another network; the object is still the layer's weight
    kernel.assign(np.zeros((4, 3)))
    np.testing.assert_array_equal(model.get_weights()[0], np.zeros((4, 3)))


def test_pruned_weights_stay_zero_when_they_are_assigned_to():
    model = small()
    model.network.mask = np.ones_like(model.network.params)
    model.network.tensors(model.network.mask)["dense/kernel"][0] = 0
    with pytest.warns(UserWarning, match="assign to dense/kernel: 3 weights that are pruned stay zero"):
        model.layers[0].kernel.assign(np.ones((4, 3)))
    np.testing.assert_array_equal(model.layers[0].kernel.numpy()[0], np.zeros(3))


def test_a_layer_by_itself():
    layer = Dense(3, "relu")
    assert (layer.built, layer.weights) == (False, [])
    outputs = layer(X)
    assert layer.built and layer.count_params() == 15
    np.testing.assert_allclose(outputs, relu_dense(X, *layer.get_weights()), rtol=1e-5, atol=1e-6)
    layer.set_weights([np.ones((4, 3)), np.zeros(3)])
    np.testing.assert_allclose(layer(X), relu_dense(X, np.ones((4, 3)), 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(X.reshape(4, 5, 4)), layer(X).reshape(4, 5, 3), rtol=1e-6)
    with pytest.raises(ValueError, match=r"its weights are not for inputs of shape \(rows, 7"):
        layer(np.ones((2, 7)))
    model = Sequential([layer, Dense(2)])  # which takes its weights over
    model.build((None, 4))
    np.testing.assert_array_equal(model.get_weights()[0], np.ones((4, 3)))
    with pytest.raises(ValueError, match="it has weights already, but for other inputs"):
        Sequential([layer]).build((None, 7))


def test_layers_by_themselves_are_named_anew_in_a_model():
    first, second = Dense(3), Dense(3)
    second(first(X))
    model = Sequential([first, second])
    np.testing.assert_array_equal(model(X), second(first(X)))
    assert [layer.name for layer in model.layers] == ["dense", "dense_1"]


def test_build_of_a_layer():
    layer = Dense(3, use_bias=False, dtype="float64")
    layer.build((None, 4))
    assert [(weight.name, weight.shape, weight.dtype) for weight in layer.weights] == [("kernel", (4, 3), "float64")]
    assert layer.bias is None
    assert layer(X).dtype == np.float64
    with pytest.raises(ValueError, match=r"expected an input shape \(rows, \.\.\., columns\), got \(4,\)"):
        Dense(3).build((4,))
    with pytest.raises(ValueError, match="layer 'dense' has dtype 'float64', but its model has 'float32'"):
        Sequential([Input((4,)), layer]).build((None, 4))


def test_a_layer_of_a_model_is_called():
    model = small()
    np.testing.assert_allclose(model.layers[2](model.layers[1](model.layers[0](X))), model(X), rtol=1e-5, atol=1e-6)
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    inner = model.layers[0](X)
    np.testing.assert_allclose(inner, relu_dense(X, *model.layers[0].get_weights()), rtol=1e-5, atol=1e-6)


def test_shapes_without_data():
    assert Dense(3).compute_output_shape((None, 4)) == (None, 3)
    assert Dense(3).compute_output_shape((2, 5, 4)) == (2, 5, 3)
    assert Flatten().compute_output_shape((None, 5, 4)) == (None, 20)
    model = Sequential([Dense(3), Dense(2)])
    assert model.compute_output_shape((8, 4)) == (8, 2)
    assert not model.built
    assert small().input_shape == (None, 4)
    assert small().output_shape == (None, 2)


def test_inputs():
    assert Input(shape=(4,), batch_size=32, dtype="float32", name="in").shape == (4,)
    assert InputLayer(batch_shape=(None, 5, 4)).shape == (5, 4)
    with pytest.raises(ValueError, match=r"Input: give shape, as in \(20,\), or batch_shape"):
        Input()
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        Input((4,), batch_size=0)


@pytest.mark.parametrize("method", ["evaluate", "predict", "test_on_batch", "train_on_batch", "forward"])
def test_a_model_is_built_by_the_shape_of_data(method):
    model = Sequential([Dense(3, "relu"), Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    data = (X,) if method in ("predict", "forward") else (X, Y)
    getattr(model, method)(*data)
    assert model.input_shape == (None, 4)


def test_summary_of_a_model_that_is_not_built():
    lines = []
    Sequential([Dense(3, name="first"), Dropout(0.5)], name="net").summary(print_fn=lines.append)
    assert lines == [
        'Model "net", float32, not built: the width of its input is not known',
        "first (Dense)",
        "dropout (Dropout)",
    ]


def test_single_batches():
    model = small()
    model.compile("sgd", "mse", metrics=["mae"])
    error = model.predict(X).astype("float64") - Y
    loss, mae = model.test_on_batch(X, Y)
    np.testing.assert_allclose([loss, mae], [(error**2).mean(), np.abs(error).mean()], rtol=1e-5)
    weights = np.arange(20.0)
    weighted = model.test_on_batch(X, Y, sample_weight=weights, return_dict=True)
    np.testing.assert_allclose(weighted["loss"], (weights * (error**2).mean(axis=1)).mean(), rtol=1e-5)


def test_pop_and_add_keep_weights():
    model = small()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    kept = model.get_weights()
    last = model.pop()
    assert (last.name, len(model.layers)) == ("dense_1", 2)
    assert model(X).shape == (20, 3)
    model.add(Dense(5, name="new"))
    assert model(X).shape == (20, 5)
    for before, after in zip(kept[:6], model.get_weights()[:6], strict=True):
        np.testing.assert_array_equal(before, after)
    assert Sequential().pop() is None


def test_layers_of_a_trained_model_in_another():
    base = small()
    base.compile("adam", "mse")
    base.fit(X, Y, epochs=2, verbose=0)
    inner = base.layers[1](base.layers[0](X))
    model = Sequential(base.layers[:-1])
    model.add(Dense(1, "sigmoid", name="head"))
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile("sgd", "binary_crossentropy")
    model.fit(X, (Y[:, :1] > 0) * 1.0, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.layers[1](model.layers[0](X)), inner)


def test_a_frozen_model():
    model = small()
    model.trainable = False
    assert (model.trainable_weights, len(model.non_trainable_weights)) == ([], 8)
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


class TestNested:
    def autoencoder(self, **options):
        encoder = Sequential([Dense(3, "tanh"), LayerNormalization()])
        decoder = Sequential([Dense(8, "relu"), Dense(4, use_bias=False)])
        return encoder, decoder, Sequential([Input((4,)), encoder, decoder], **options)

    def test_parts_learn_with_the_whole(self):
        encoder, decoder, model = self.autoencoder()
        model.compile("adam", "mse")
        model.fit(X, X, epochs=3, verbose=0)
        np.testing.assert_allclose(decoder.predict(encoder.predict(X)), model.predict(X), rtol=1e-5, atol=1e-6)
        assert [layer.name for layer in model.layers] == ["sequential", "sequential_1"]
        assert model.layers[0] is encoder
        assert model.weights[0].path == "sequential/dense/kernel"
        assert model.count_params() == encoder.count_params() + decoder.count_params() == 15 + 6 + 32 + 32

    def test_it_learns_as_the_flat_model_does(self):
        _, _, model = self.autoencoder()
        flat = Sequential(
            [Input((4,)), Dense(3, "tanh"), LayerNormalization(), Dense(8, "relu"), Dense(4, use_bias=False)]
        )
        flat.set_weights(model.get_weights())
        for each in (model, flat):
            each.seed = 3
            each.compile("adam", "mse")
            each.fit(X, X, epochs=3, batch_size=8, verbose=0)
        for ours, theirs in zip(model.get_weights(), flat.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_a_part_that_learns_by_itself_moves_the_whole(self):
        encoder, decoder, model = self.autoencoder()
        model.build((None, 4))
        codes = encoder.predict(X)
        decoder.compile("sgd", "mse")
        decoder.fit(codes, X, epochs=2, verbose=0)
        np.testing.assert_allclose(decoder.predict(codes), model.predict(X), rtol=1e-5, atol=1e-6)
        decoder.trainable = False
        model.compile("sgd", "mse")
        before = decoder.get_weights()
        model.fit(X, X, verbose=0)
        decoder.trainable = True
        decoder.compile("sgd", "mse")  # another network of the same memory
        for old, new in zip(before, decoder.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        decoder.fit(codes, X, verbose=0)
        np.testing.assert_allclose(decoder.predict(encoder.predict(X)), model.predict(X), rtol=1e-5, atol=1e-6)

    def test_weights_come_along(self):
        base = Sequential([Input((4,)), Dense(3, "relu")], name="base")
        base.compile("sgd", "mse")
        base.fit(X, Y[:, [0, 0, 0]], verbose=0)
        base.trainable = False
        codes = base.predict(X)
        model = Sequential([base, Dense(2)])
        assert model.predict(X).shape == (20, 2)
        np.testing.assert_array_equal(base.predict(X), codes)
        model.compile("sgd", "mse")
        model.fit(X, Y, verbose=0)
        np.testing.assert_array_equal(base.predict(X), codes)

    def test_saved_and_loaded(self, tmp_path):
        _, _, model = self.autoencoder(name="whole")
        model.compile("adam", "mse")
        model.fit(X, X, verbose=0)
        model.save(tmp_path / "model.nbd")
        other = load_model(tmp_path / "model.nbd")
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        for each in (model, other):
            each.fit(X, X, verbose=0)
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        np.testing.assert_array_equal(other.layers[0].predict(X), model.layers[0].predict(X))

    def test_quantized_and_exported(self, tmp_path):
        _, _, model = self.autoencoder()
        model.build((None, 4))
        exact = model.predict(X)
        quantized = nbdense.quantize(model, X)
        assert np.abs(quantized.predict(X) - exact).max() < 0.2 * np.abs(exact).max()
        nbdense.to_onnx(model, tmp_path / "model.onnx")
        np.testing.assert_allclose(nbdense.from_onnx(tmp_path / "model.onnx").predict(X), exact, rtol=1e-4, atol=1e-5)
        plain = Sequential([Input((4,)), Sequential([Dense(3), Dense(2)], name="inside")])
        with pytest.raises(ValueError, match="layer 'inside' is a Sequential, which is not supported"):
            nbdense.quantize_aware(plain, X)

    def test_batch_normalisation_is_folded(self):
        model = Sequential([Input((4,)), Sequential([Dense(3), BatchNormalization()]), Dense(2)])
        model.compile("sgd", "mse")
        model.fit(X, Y, epochs=3, verbose=0)
        folded = model.fold_batch_normalization()
        assert not any("moving" in name for name in folded.parameters)
        np.testing.assert_allclose(folded.predict(X), model.predict(X), rtol=1e-4, atol=1e-5)

    def test_dtypes_agree(self):
        inside = Sequential([Dense(3)], dtype="float64")
        with pytest.raises(ValueError, match="layer 'sequential' has dtype 'float64', but its model has 'float32'"):
            Sequential([Input((4,)), inside]).predict(X)

    def test_summary_has_their_layers(self):
        lines = []
        _, _, model = self.autoencoder()
        model.summary(print_fn=lines.append)
        assert [line.split(" (")[0] for line in lines[4:9]] == [
            "sequential",
            "  dense",
            "  layer_normalization",
            "sequential_1",
            "  dense",
        ]


def test_descriptions(tmp_path):
    model = Sequential(
        [
            Input((4,), name="in"),
            Dense(3, "relu", kernel_initializer="he_normal", kernel_regularizer="l2", name="hidden", trainable=False),
            Dropout(0.5),
            Sequential([Dense(2, dtype="float64")], name="inside", dtype="float64"),
        ],
        name="net",
        dtype="float64",
    )
    config = model.get_config()
    assert (config["name"], config["dtype"]) == ("net", "float64")
    assert [layer["class_name"] for layer in config["layers"]] == ["InputLayer", "Dense", "Dropout", "Sequential"]
    assert config["layers"][1]["config"]["units"] == 3
    for other in (
        Sequential.from_config(config),
        model_from_json(model.to_json()),
        model_from_json(json.dumps(json.loads(model.to_json(indent=2)))),
        clone_model(model),
    ):
        assert other.get_config() == config
        assert other.built
        assert other.predict(X).shape == (20, 2)
        assert not np.array_equal(other.get_weights()[0], model.get_weights()[0])
    with pytest.raises(ValueError, match="expected the description of a Sequential"):
        model_from_json('{"class_name": "Functional"}')


@pytest.mark.parametrize(
    "layer",
    [
        Dense(3, "tanh", name="d"),
        Dropout(0.25),
        Flatten(),
        BatchNormalization(momentum=0.5),
        Input((4,)),
        Input((4,), name="x"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_are_made_of_their_descriptions(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.filterwarnings("ignore:.*model files are safetensors whatever the suffix")
@pytest.mark.parametrize("name", ["net.weights.h5", "net.safetensors"])
def test_weights_are_saved_alone(tmp_path, name):
    model, other = small(), Sequential([Input((4,)), Dense(3, "relu", name="a"), BatchNormalization(), Dense(2)])
    model.save_weights(tmp_path / name)
    other.load_weights(tmp_path / name)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    third = small()
    model.save(tmp_path / "whole.nbd")
    third.load_weights(tmp_path / "whole.nbd")
    np.testing.assert_array_equal(third.predict(X), model.predict(X))
    wrong = Sequential([Input((4,)), Dense(3)])
    with pytest.raises(nbdense.files.FileFormatError, match="it has 8 tensors of weights, the model has 2"):
        wrong.load_weights(tmp_path / name)


@pytest.mark.parametrize("kind", [BatchNormalization, LayerNormalization, RMSNormalization])
def test_the_last_axis_by_its_number(kind):
    np.testing.assert_array_equal(kind(axis=1)(X), kind()(X))
    cube = X.reshape(4, 5, 4)
    np.testing.assert_array_equal(kind(axis=[2])(cube), kind(axis=-1)(cube))
    layer = kind(axis=2)
    assert kind.from_config(layer.get_config()).axis == 2
    with pytest.raises(ValueError, match=r"axis must be the last, which is -1 or 1 for inputs of shape \(None, 4\)"):
        layer(X)
    for wrong in (0, -2, [1, 2], True):
        with pytest.raises(ValueError, match="axis must be -1 or the number of the last"):
            kind(axis=wrong)


@pytest.mark.parametrize("activation", [None, "linear"])
def test_an_activation_is_replaced(activation):
    layer = Dense(2, "relu", use_bias=False)
    layer.build((None, 2))
    layer.set_weights([np.array([[1.0, -2.0], [3.0, -4.0]])])
    rows = np.array([[-1.0, 2.0], [1.0, 1.0]])
    np.testing.assert_array_equal(layer(rows), [[5.0, 0.0], [4.0, 0.0]])
    layer.activation = activation
    np.testing.assert_array_equal(layer(rows), [[5.0, -6.0], [4.0, -6.0]])
    with pytest.raises(ValueError, match="unknown activation 'nothing'"):
        layer.activation = "nothing"


def test_a_models_activation_is_replaced_at_the_next_compile():
    model = Sequential([Input((4,)), Dense(3), Activation("sigmoid")])
    model.compile("sgd", "mse")
    expected = np.tanh(X @ model.get_weights()[0])
    model.layers[1].activation = "tanh"
    model.compile("sgd", "mse")
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_built_has_no_weights_and_no_shape():
    model = Sequential([Dense(3)])
    assert model.get_weights() == Dense(3).get_weights() == []
    assert not hasattr(model, "input_shape")
    assert not hasattr(model, "output_shape")
    model.build((None, 4))
    assert (model.input_shape, model.output_shape) == ((None, 4), (None, 3))
    assert [weights.shape for weights in model.get_weights()] == [(4, 3), (3,)]


def test_layers_cannot_be_assigned():
    model = small()
    with pytest.raises(AttributeError, match=r"Use `add\(\)` and `pop\(\)`"):
        model.layers = [Dense(4)]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (None, None, 5)])
def test_activations_take_any_shape(shape):
    assert ReLU().compute_output_shape(shape) == shape


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(BatchNormalization, "synchronized"), (BatchNormalization, "renorm"), (LayerNormalization, "rms_scaling")],
)
def test_options_that_change_nothing_are_accepted(kind, arguments):
    np.testing.assert_array_equal(kind(**{arguments: False})(X), kind()(X))
    with pytest.raises(ValueError, match=f"{kind.__name__}: {arguments} is not supported, got True"):
        kind(**{arguments: True})


def test_arguments_of_inputs():
    assert Input((4,), sparse=False, ragged=False, optional=False).shape == (4,)
    for name in ("sparse", "ragged", "optional"):
        with pytest.raises(ValueError, match=f"Input: {name} is not supported, got True"):
            Input((4,), **{name: True})
    with pytest.raises(ValueError, match="leave batch_size out"):
        Input(batch_size=4, batch_shape=(4, 3))
