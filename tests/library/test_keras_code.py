"""Code as Keras's documentation and its users write it, with only the import lines changed."""

import numpy as np
import pytest

from nbdense import activations, callbacks, initializers, losses, metrics, optimizers, regularizers, schedules
from nbdense.callbacks import EarlyStopping, LearningRateScheduler, ModelCheckpoint, ReduceLROnPlateau
from nbdense.layers import Activation, BatchNormalization, Dense, Dropout, Flatten, Input, LayerNormalization
from nbdense.models import Sequential, load_model
from nbdense.optimizers import SGD, Adam
from nbdense.regularizers import l1_l2, l2
from nbdense.utils import to_categorical

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 32))
LABELS = RNG.integers(0, 10, 60)


def test_getting_started():
    model = Sequential()
    model.add(Dense(64, input_shape=(32,), activation="relu"))
    model.add(Dropout(0.5))
    model.add(BatchNormalization())
    model.add(Dense(64, kernel_initializer="he_normal", kernel_regularizer=l2(l=0.01)))
    model.add(Activation("relu"))
    model.add(Dense(10, activation="softmax"))
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    history = model.fit(X, to_categorical(LABELS, 10), epochs=2, batch_size=16, validation_split=0.2, verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    loss, accuracy = model.evaluate(X, to_categorical(LABELS, 10), verbose=0)
    assert np.isfinite(loss) and 0 <= accuracy <= 1
    assert model.predict(X, verbose=0).shape == (60, 10)
    assert model.count_params() == 32 * 64 + 64 + 4 * 64 + 64 * 64 + 64 + 650


def test_digits_of_images(tmp_path):
    images, labels = RNG.integers(0, 256, (80, 28, 28)).astype("uint8"), RNG.integers(0, 10, 80)
    model = Sequential(
        [
            Input(shape=(28, 28)),
            Flatten(),
            Dense(128, activation="relu", name="hidden"),
            Dropout(0.2),
            Dense(10),
        ]
    )
    model.compile(
        optimizer=Adam(learning_rate=1e-3),
        loss=losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[metrics.SparseCategoricalAccuracy(name="acc")],
    )
    stop = EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    keep = ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True, monitor="val_acc", mode="max")
    with pytest.warns(UserWarning, match="best.keras: model files are safetensors whatever the suffix"):
        model.fit(images / 255.0, labels, epochs=3, validation_split=0.25, callbacks=[stop, keep], verbose=0)
    assert (tmp_path / "best.keras").exists()
    again = load_model(tmp_path / "best.keras")
    assert again.predict(images[:3] / 255.0).shape == (3, 10)
    assert model.get_layer("hidden").get_weights()[0].shape == (784, 128)
    assert len(model.layers) == 4
    results = model.evaluate(images / 255.0, labels, return_dict=True)
    assert list(results) == ["loss", "acc"]


def test_regression_with_schedules():
    model = Sequential([Dense(32, activation="relu", input_dim=32), LayerNormalization(), Dense(1)])
    schedule = schedules.ExponentialDecay(initial_learning_rate=1e-2, decay_steps=10, decay_rate=0.9)
    model.compile(optimizer=SGD(learning_rate=schedule, momentum=0.9, nesterov=True), loss="mse", metrics=["mae"])
    history = model.fit(X, X[:, :1] * 2, epochs=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert isinstance(model.evaluate(X, X[:, 0]), list)


def test_binary_with_class_weights():
    labels = (X[:, 0] > 0.5).astype(int)
    model = Sequential([Dense(16, activation="tanh", kernel_regularizer=l1_l2(l1=1e-5, l2=1e-4)), Dense(1, "sigmoid")])
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy", metrics.AUC(), metrics.Recall(name="recall")])
    plateau = ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1)
    rates = LearningRateScheduler(lambda epoch, rate: rate * 0.9)
    history = model.fit(X, labels, epochs=3, class_weight={0: 1.0, 1: 5.0}, callbacks=[plateau, rates], verbose=0)
    assert set(history.history) == {"loss", "accuracy", "auc", "recall", "learning_rate"}
    assert history.history["learning_rate"][1] < history.history["learning_rate"][0]


def test_names_resolve_as_in_keras():
    assert initializers.get("he_normal").__class__.__name__ == "HeNormal"
    assert regularizers.get("l2").l2 == pytest.approx(0.01)
    assert optimizers.get("sgd").learning_rate == 0.01
    assert losses.get("mse") is losses.mean_squared_error
    assert losses.get("MeanSquaredError") == losses.get(losses.MeanSquaredError)
    assert activations.get("swish") is activations.get("silu")
    assert activations.get(None).name == "linear"
    assert issubclass(callbacks.CSVLogger, callbacks.Callback)


def test_feature_extractor():
    """Frozen layers below a new head, and weights carried from one model to another."""
    base = Sequential([Input((32,)), Dense(16, "relu", name="features"), Dense(10, "softmax")])
    base.compile("adam", "sparse_categorical_crossentropy")
    base.fit(X, LABELS, verbose=0)
    model = Sequential([Input((32,)), Dense(16, "relu", name="features", trainable=False), Dense(3, "softmax")])
    model.build((None, 32))
    model.get_layer("features").set_weights(base.get_layer("features").get_weights())
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, LABELS % 3, epochs=2, verbose=0)
    np.testing.assert_array_equal(
        model.get_layer("features").get_weights()[0], base.get_layer("features").get_weights()[0]
    )


def test_train_on_batch_loop():
    model = Sequential([Dense(8, "relu"), Dense(1)])
    model.compile("adam", "mse")
    model.build((None, 32))
    found = [model.train_on_batch(X, X[:, 0]) for _ in range(30)]
    assert found[-1] < found[0]
