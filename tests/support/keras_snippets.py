"""People's code for Keras's Sequential and layers: functions of a library, which is Keras or nbdense.

Each takes the library's names and the data, and returns numbers, shapes and names by what they are. Values that Keras
gave are in tests/golden/keras_models.npz; tests/models/test_keras_golden.py holds nbdense's to them.
"""

import numpy as np

SNIPPETS = {}
COVERED = {}  # names and arguments that a snippet uses


def snippet(*names):
    def enter(function):
        SNIPPETS[function.__name__] = function
        COVERED[function.__name__] = names
        return function

    return enter


def data():
    """Return the inputs of all snippets, by name."""
    rng = np.random.default_rng(20)
    return {
        "x": rng.normal(size=(30, 4)).astype("float32"),
        "y": rng.normal(size=(30, 2)).astype("float32"),
        "labels": rng.integers(0, 3, 30),
        "weights": rng.uniform(0.5, 2.0, 30).astype("float32"),
        "numbers": rng.uniform(-0.8, 0.8, 400).astype("float32"),
    }


def start(model, d):
    """Set a model's or layer's weights to numbers that are the same everywhere; variances to positive ones."""
    place, values = 0, []
    for weight in model.get_weights():
        part = d["numbers"][place : place + weight.size].reshape(weight.shape)
        place += weight.size
        values.append(part)
    for number, weight in enumerate(model.weights):
        if weight.name == "moving_variance":
            values[number] = np.abs(values[number]) + 0.5
    model.set_weights(values)
    return model


def net(k, d, **options):
    layers = [
        k.layers.Input(shape=(4,)),
        k.layers.Dense(5, activation="tanh", name="hidden"),
        k.layers.BatchNormalization(name="norm"),
        k.layers.Dense(2, name="out"),
    ]
    return start(k.Sequential(layers, **options), d)


def all_of(model):
    return {f"weight{number}": weight for number, weight in enumerate(model.get_weights())}


@snippet("Sequential.__call__", "predict", "predict_on_batch", "Sequential.get_weights", "set_weights")
def outputs(k, d):
    model = net(k, d)
    called, predicted = np.asarray(model(d["x"])), model.predict(d["x"], verbose=0)
    return {"called": called, "predicted": predicted, "batch": np.asarray(model.predict_on_batch(d["x"]))}


@snippet("Sequential(training=True)", "BatchNormalization.moving_mean", "moving_variance")
def outputs_in_training(k, d):
    model = net(k, d)
    called = np.asarray(model(d["x"], training=True))
    norm = model.get_layer("norm")
    return {"called": called, "mean": np.asarray(norm.moving_mean), "variance": np.asarray(norm.moving_variance)}


@snippet("weights", "trainable_weights", "non_trainable_weights", "count_params", "weight.name", "weight.shape")
def lists_of_weights(k, d):
    model = net(k, d)
    return {
        "names": [weight.name for weight in model.weights],
        "shapes": [list(weight.shape) for weight in model.weights],
        "trainable": [weight.name for weight in model.trainable_weights],
        "fixed": [weight.name for weight in model.non_trainable_weights],
        "variables": len(model.trainable_variables),
        "count": model.count_params(),
        "layer_counts": [layer.count_params() for layer in model.layers],
        "dtype": str(model.weights[0].dtype),
    }


@snippet("weight.assign", "weight.numpy", "Dense.kernel", "Dense.bias", "layer.get_weights")
def assigned(k, d):
    model = net(k, d)
    hidden = model.layers[0]
    hidden.kernel.assign(np.ones((4, 5), "float32"))
    hidden.weights[1].assign(np.zeros(5, "float32"))
    return {
        "kernel": hidden.kernel.numpy(),
        "bias": np.asarray(hidden.get_weights()[1]),
        "called": np.asarray(model(d["x"])),
    }


@snippet("layer.trainable", "model.trainable", "compile after freezing")
def frozen(k, d):
    model = net(k, d)
    model.layers[0].trainable = False
    model.compile(optimizer="sgd", loss="mse")
    model.fit(d["x"], d["y"], batch_size=10, epochs=2, shuffle=False, verbose=0)
    counts = [len(model.trainable_weights), len(model.non_trainable_weights)]
    model.trainable = False
    return {**all_of(model), "counts": [*counts, len(model.trainable_weights), len(model.layers[2].trainable_weights)]}


@snippet("input_shape", "output_shape", "compute_output_shape", "built")
def shapes(k, d):
    model = net(k, d)
    unbuilt = k.Sequential([k.layers.Dense(3)])
    before = unbuilt.built
    unbuilt.build((None, 4))
    return {
        "input": list(model.input_shape),
        "output": list(model.output_shape),
        "computed": list(model.compute_output_shape((7, 4))),
        "layer": list(k.layers.Dense(6).compute_output_shape((None, 5, 4))),
        "flat": list(k.layers.Flatten().compute_output_shape((None, 5, 4))),
        "built": [before, unbuilt.built, model.built],
    }


@snippet("Sequential.pop", "Sequential.add after building")
def popped(k, d):
    model = net(k, d)
    model.pop()
    shape = list(model(d["x"]).shape)
    model.add(k.layers.Dense(1, kernel_initializer="ones", name="new"))
    return {"shape": shape, "called": np.asarray(model(d["x"])), "names": [layer.name for layer in model.layers]}


@snippet("Sequential in a Sequential", "get_layer of it")
def nested(k, d):
    encoder = k.Sequential([k.layers.Dense(3, activation="relu")], name="encoder")
    decoder = k.Sequential([k.layers.Dense(4)], name="decoder")
    model = start(k.Sequential([k.layers.Input(shape=(4,)), encoder, decoder]), d)
    model.compile(optimizer="sgd", loss="mse")
    model.fit(d["x"], d["x"], batch_size=10, epochs=2, shuffle=False, verbose=0)
    codes = encoder.predict(d["x"], verbose=0)
    return {
        **all_of(model),
        "codes": codes,
        "decoded": decoder.predict(codes, verbose=0),
        "names": [layer.name for layer in model.layers],
        "same": model.get_layer("encoder") is encoder,
    }


@snippet("layers of a trained model in another")
def transferred(k, d):
    base = net(k, d)
    model = k.Sequential([*base.layers[:-1], k.layers.Dense(1, kernel_initializer="ones", name="head")])
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(optimizer="sgd", loss="mse")
    model.fit(d["x"], d["y"][:, :1], batch_size=10, shuffle=False, verbose=0)
    return {**all_of(model), "called": np.asarray(model(d["x"]))}


@snippet("layer.__call__", "layer.build", "layer.set_weights", "Dense on three axes")
def layers_alone(k, d):
    dense = k.layers.Dense(3, activation="sigmoid")
    dense.build((None, 4))
    start(dense, d)
    norm, flat = k.layers.LayerNormalization(), k.layers.Flatten()
    cube = d["x"][:28].reshape(4, 7, 4)
    return {
        "dense": np.asarray(dense(d["x"])),
        "cube": np.asarray(dense(cube)),
        "norm": np.asarray(norm(d["x"])),
        "flat": np.asarray(flat(cube)),
        "dropped": np.asarray(k.layers.Dropout(0.5)(d["x"], training=False)),
        "norm_weights": [weight.name for weight in norm.weights],
    }


@snippet("get_config", "from_config", "to_json", "clone_model", "model_from_json")
def described(k, d):
    model = net(k, d, name="named")
    config = model.get_config()
    again = k.Sequential.from_config(config)
    hidden = config["layers"][1]
    return {
        "names": [layer["class_name"] for layer in config["layers"]],
        "model": [
            config["name"],
            config["dtype"] if isinstance(config["dtype"], str) else config["dtype"]["config"]["name"],
        ],
        "hidden": [hidden["config"][key] for key in ("name", "units", "activation", "use_bias")],
        "again": [layer.name for layer in again.layers],
        "clone": [layer.name for layer in k.models.clone_model(model).layers],
        "json": [layer.name for layer in k.models.model_from_json(model.to_json()).layers],
        "layer": k.layers.Dense.from_config(k.layers.Dense(7, name="seven").get_config()).units,
    }


@snippet("save_weights", "load_weights")
def saved(k, d):
    import tempfile

    model, other = net(k, d), net(k, d)
    other.set_weights([np.zeros_like(weight) for weight in other.get_weights()])
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(f"{folder}/model.weights.h5")
        other.load_weights(f"{folder}/model.weights.h5")
    return all_of(other)


@snippet("test_on_batch", "train_on_batch", "sample_weight", "return_dict", "weighted_metrics")
def single_batches(k, d):
    model = net(k, d)
    model.compile(optimizer="sgd", loss="mse", metrics=["mae"], weighted_metrics=["mse"])
    tested = model.test_on_batch(d["x"], d["y"], sample_weight=d["weights"], return_dict=True)
    return {**{key: float(value) for key, value in tested.items()}, "keys": sorted(tested)}


@snippet("evaluate", "metrics and weighted_metrics of one name", "class_weight")
def evaluated(k, d):
    model = k.Sequential([k.layers.Input(shape=(4,)), k.layers.Dense(3, activation="softmax")])
    start(model, d).compile(
        optimizer="sgd",
        loss="sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
        weighted_metrics=["sparse_categorical_accuracy"],
    )
    results = model.evaluate(d["x"], d["labels"], sample_weight=d["weights"], return_dict=True, verbose=0)
    return {**{key: float(value) for key, value in results.items()}, "keys": list(results)}


@snippet("fit of a generator", "steps_per_epoch", "validation_steps", "validation_freq", "validation_batch_size")
def generators(k, d):
    def batches():
        while True:
            for first in (0, 10, 20):
                yield d["x"][first : first + 10], d["y"][first : first + 10]

    model = net(k, d)
    model.compile(optimizer="sgd", loss="mse", jit_compile=False, steps_per_execution=1, run_eagerly=False)
    history = model.fit(batches(), steps_per_epoch=2, epochs=4, verbose=0).history
    checked = model.fit(
        *(d["x"], d["y"]),
        batch_size=10,
        epochs=4,
        shuffle=False,
        validation_data=(d["x"], d["y"]),
        validation_batch_size=10,
        validation_steps=3,
        validation_freq=2,
        verbose=0,
    ).history
    return {**all_of(model), "loss": history["loss"], "val_loss": checked["val_loss"], "checked": checked["loss"]}


def _constrained(k, d, constraint, bias=None):
    dense = k.layers.Dense(2, kernel_constraint=constraint, bias_constraint=bias)
    model = start(k.Sequential([k.layers.Input(shape=(4,)), dense]), d)
    model.compile(optimizer=k.optimizers.SGD(0.1), loss="mse")
    model.fit(d["x"], d["y"], batch_size=7, epochs=2, shuffle=False, verbose=0)
    return all_of(model)


@snippet("kernel_constraint=max_norm", "constraints.MaxNorm")
def max_norm(k, d):
    return _constrained(k, d, k.constraints.MaxNorm(0.5))


@snippet("kernel_constraint=non_neg", "bias_constraint")
def non_neg(k, d):
    return _constrained(k, d, "non_neg", k.constraints.MinMaxNorm(0.1, 0.2, 0.5))


@snippet("kernel_constraint=unit_norm", "constraints.UnitNorm")
def unit_norm(k, d):
    return _constrained(k, d, k.constraints.UnitNorm())


@snippet("BatchNormalization(gamma_constraint)", "beta_regularizer", "gamma_regularizer")
def norm_options(k, d):
    norm = k.layers.BatchNormalization(gamma_constraint="non_neg", beta_regularizer="l1", gamma_regularizer="l2")
    model = start(k.Sequential([k.layers.Input(shape=(4,)), norm, k.layers.Dense(2)]), d)
    model.compile(optimizer=k.optimizers.SGD(0.1), loss="mse")
    history = model.fit(d["x"], d["y"], batch_size=15, epochs=3, shuffle=False, verbose=0).history
    return {**all_of(model), "loss": history["loss"]}


@snippet("Dense(activity_regularizer)", "ActivityRegularization", "losses of frozen layers")
def penalised_activities(k, d):
    frozen = k.layers.Dense(4, activation="tanh", activity_regularizer="l1", trainable=False)
    layers = [
        k.layers.Dense(
            5, activation="relu", activity_regularizer={"class_name": "L1L2", "config": {"l1": 0.05, "l2": 0.1}}
        ),
        k.layers.ActivityRegularization(l1=0.02, l2=0.03),
        frozen,
        k.layers.Dense(2, activity_regularizer="l2"),
    ]
    model = start(k.Sequential([k.layers.Input(shape=(4,)), *layers]), d)
    model.compile(optimizer=k.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    fitted = {"batch_size": 7, "epochs": 3, "shuffle": False, "verbose": 0}
    options = {"sample_weight": d["weights"], "validation_data": (d["x"][:9], d["y"][:9])}
    history = model.fit(d["x"], d["y"], **fitted, **options).history
    tested = model.evaluate(d["x"], d["y"], batch_size=8, verbose=0)
    one = model.train_on_batch(d["x"], d["y"])
    numbers = {"tested": [float(value) for value in tested], "one": [float(value) for value in one]}
    return {**all_of(model), "loss": history["loss"], "val_loss": history["val_loss"], **numbers}


@snippet("InputLayer", "Input(batch_shape)", "Input(batch_size, dtype, name)", "Dense(dtype, trainable)")
def inputs(k, d):
    first = k.Sequential([k.layers.InputLayer(shape=(4,)), k.layers.Dense(2)])
    second = k.Sequential([k.layers.Input(batch_shape=(None, 4)), k.layers.Dense(2, dtype="float32", trainable=False)])
    third = k.Sequential([k.layers.Input(shape=(4,), dtype="float32", name="in"), k.layers.Dense(2)])
    return {
        "shapes": [list(model.output_shape) for model in (first, second, third)],
        "counts": [len(model.trainable_weights) for model in (first, second, third)],
    }
