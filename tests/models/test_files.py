"""Model files: round trips, damage of every kind refused by name, and writes that a failure cannot tear."""

import itertools
import json
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from onnx.helper import make_graph
from onnx.helper import make_model as make_model_proto
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from nbdense.activations import ACTIVATIONS
from nbdense.export import to_onnx
from nbdense.files import FileFormatError
from nbdense.models import load_model
from nbdense.optimizers import OPTIMIZERS
from nbdense.quant import quantize, quantize_aware
from tests.support.builders import OBJECTIVES, draw_targets, make_model, objective_name


@pytest.fixture
def saved(tmp_path):
    """A file of a small trained model."""
    rng = np.random.default_rng(1)
    model = make_model([3, 5, 2], ["relu", "softmax"], "sparse_categorical_crossentropy", "adam", metrics=["accuracy"])
    model.fit(rng.normal(size=(20, 3)), rng.integers(0, 2, 20), verbose=0)
    model.save(tmp_path / "model.nbd")
    return tmp_path / "model.nbd"


def rewrite(path, config=None, metadata=None, tensors=None):
    """The same file with its description, its metadata or its tensors edited by a function of each."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    texts = json.loads(content[8 : 8 + length])["__metadata__"]
    arrays = load_tensors(content)
    if config is not None:
        description = json.loads(texts["config"])
        config(description)
        texts["config"] = json.dumps(description)
    for edit, value in ((metadata, texts), (tensors, arrays)):
        if edit is not None:
            edit(value)
    path.write_bytes(save_tensors(arrays, texts))


def assert_refused(path, words=None):
    with pytest.raises(FileFormatError, match=words) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def assert_same_model(model, other, x):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model.state[1:], other.state[1:])
    np.testing.assert_array_equal(model.predict(x), other.predict(x))
    assert [(layer.kind, layer.get_config()) for layer in model._all] == [
        (layer.kind, layer.get_config()) for layer in other._all
    ]
    for name in ("name", "dtype", "seed", "epochs_trained", "loss"):
        assert getattr(model, name) == getattr(other, name), name
    assert model.optimizer.get_config() == other.optimizer.get_config()
    assert model.optimizer.iterations == other.optimizer.iterations


# Every loss once, every optimizer in both dtypes. A file keeps them apart: not each with each.
OTHERS = itertools.cycle((optimizer, dtype) for dtype in ("float32", "float64") for optimizer in OPTIMIZERS)


@pytest.mark.parametrize(
    ("objective", "optimizer", "dtype"),
    [(objective, *others) for objective, others in zip(OBJECTIVES, OTHERS, strict=False)],
    ids=lambda value: value if isinstance(value, str) else objective_name(value),
)
def test_round_trip(objective, optimizer, dtype, tmp_path):
    """Every loss, optimizer and activation: the loaded model is the same, and goes on training the same way."""
    loss, activation = objective
    rng = np.random.default_rng(2)
    model = make_model([4, *[3] * len(ACTIVATIONS), 2], [*ACTIVATIONS, activation], loss, optimizer, dtype=dtype)
    x, y = rng.normal(size=(20, 4)), draw_targets(rng, loss, 20, 2)
    model.fit(x, y, 8, verbose=0)
    model.save(tmp_path / "m")
    other = load_model(tmp_path / "m")
    assert_same_model(model, other, x)
    model.fit(x, y, 8, verbose=0)
    other.fit(x, y, 8, verbose=0)
    assert_same_model(model, other, x)


def test_every_optimizer_has_had_both_dtypes():
    assert len(OBJECTIVES) >= 2 * len(OPTIMIZERS)


def test_mask_is_kept_and_held(tmp_path):
    rng = np.random.default_rng(3)
    model = make_model([4, 17, 2], ["relu", "linear"], optimizer="adam")
    mask = np.ones_like(model.network.params)
    for view in model.network.tensors(mask).values():
        view[...] = rng.random(view.shape) < 0.5
    model.network.mask = mask
    model.network.params *= mask
    model.save(tmp_path / "m")
    other = load_model(tmp_path / "m")
    for a, b in zip(
        model.network.tensors(mask).values(), other.network.tensors(other.network.mask).values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    model.fit(x, y, 8, verbose=0)
    other.fit(x, y, 8, verbose=0)
    assert_same_model(model, other, x)
    for name, view in other.network.tensors().items():
        assert not view[other.network.tensors(mask)[name] == 0].any()


def test_uncompiled_model_without_biases(tmp_path):
    model = make_model([4, 3, 2], ["relu", "linear"], bias=False, dtype="float32")
    model.optimizer = model.loss = None
    model.save(tmp_path / "m")
    other = load_model(tmp_path / "m")
    assert other.loss is None
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(model.predict(x), other.predict(x))


def test_files_hold_unpadded_tensors(saved):
    content = saved.read_bytes()
    shapes = {name: value.shape for name, value in load_tensors(content).items()}
    assert shapes["weights/dense/kernel"] == (3, 5)
    assert shapes["slot2/dense_1/bias"] == (2,)


# -- damage ---------------------------------------------------------------------------------------------------------


def test_truncated_anywhere(saved):
    content = saved.read_bytes()
    cuts = {0, 1, 7, 8, 9, len(content) - 1, *np.linspace(0, len(content) - 1, 60).astype(int).tolist()}
    for cut in sorted(cuts):
        saved.write_bytes(content[:cut])
        assert_refused(saved)
    saved.write_bytes(content)
    load_model(saved)


def test_extended(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    assert_refused(saved)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\3\4" + b"x" * 200, b"\x89HDF\r\n\x1a\n" + b"y" * 500])
def test_something_else(content, tmp_path):
    (tmp_path / "m").write_bytes(content)
    assert_refused(tmp_path / "m")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (make_model_proto(make_graph([], "g", [], [])).SerializeToString(), "an ONNX model.*from_onnx"),
        (pickle.dumps({"weights": list(range(100))}), "is a pickle"),
        (b"PK\x03\x04" + bytes(60), "a zip archive, as Keras"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "an HDF5 file"),
        (b"\x1c\0\0\0TFL3" + bytes(60), "a TFLite model"),
    ],
)
def test_files_of_others_are_named(content, words, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(content)
    assert_refused(path, words)


def test_suffixes_of_other_formats(tmp_path):
    model = make_model([3, 2], ["linear"])
    with pytest.raises(ValueError, match=r"m\.onnx: model files are safetensors.*to_onnx\(model, path\)"):
        model.save(tmp_path / "m.onnx")
    assert not any(tmp_path.iterdir())
    for name in ("m.keras", "m.h5"):
        with pytest.warns(UserWarning, match="Keras cannot read this one"):
            model.save(tmp_path / name)
        assert load_model(tmp_path / name).count_params() == 8


def test_another_safetensors_file(tmp_path):
    (tmp_path / "m").write_bytes(save_tensors({"w": np.zeros(3)}, {"format": "pt"}))
    assert_refused(tmp_path / "m", "not one that nbdense wrote")


def test_garbled_bytes_load_or_are_refused(saved):
    """A changed byte of the header may still make a model, but never another error."""
    rng = np.random.default_rng(4)
    content = saved.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    refused = 0
    for _ in range(400):
        garbled = bytearray(content)
        for at in rng.integers(0, header, int(rng.integers(1, 4))):
            garbled[at] = int(rng.integers(32, 127)) if at >= 8 else int(rng.integers(256))
        saved.write_bytes(garbled)
        try:
            load_model(saved)
        except FileFormatError as error:
            refused += 1
            assert str(saved) in str(error)
    assert refused > 200


def _set(*path, to):
    def edit(description):
        for key in path[:-1]:
            description = description[key]
        description[path[-1]] = to

    return edit


def _drop(*path):
    def edit(description):
        for key in path[:-1]:
            description = description[key]
        del description[path[-1]]

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        _drop("layers"),
        _drop("seed"),
        _drop("layers", 0),
        _drop("compiled", "loss"),
        _set("dtype", to="float16"),
        _set("layers", to=7),
        _set("layers", to=[]),
        _set("layers", 1, "kind", to="os.system"),
        _set("layers", 1, "config", "units", to=6),
        _set("layers", 1, "config", "units", to=-5),
        _set("layers", 1, "config", "units", to="5"),
        _set("layers", 1, "config", "units", to=1e400),
        _set("layers", 1, "config", "activation", to="sinc"),
        _set("layers", 1, "config", "activation", to=["relu"]),
        _set("layers", 1, "config", "exec", to=1),
        _set("layers", 0, "config", "shape", to=[3, -1]),
        _set("layers", 0, "config", "shape", to=[]),
        _set("seed", to="one"),
        _set("seed", to=2**80),
        _set("epochs_trained", to=None),
        _set("compiled", "optimizer", "class_name", to="eval"),
        _set("compiled", "optimizer", "config", to={"learning_rate": -1}),
        _set("compiled", "iterations", to=[]),
        _set("compiled", "loss", "class_name", to="nonsense"),
        _set("compiled", "metrics", to=5),
        _set("compiled", "metrics", to=["nonsense"]),
        _set("compiled", to=[]),
    ],
)
def test_wrong_descriptions(edit, saved):
    rewrite(saved, config=edit)
    assert_refused(saved)


@pytest.mark.parametrize(
    "edit",
    [
        _drop("weights/dense/kernel"),
        _drop("slot1/dense/kernel"),
        _set("weights/dense/kernel", to=np.zeros((5, 3))),
        _set("slot1/dense/kernel", to=np.zeros((5, 3))),
        _set("weights/dense/bias", to=np.zeros(6)),
        _set("weights/dense/bias", to=np.zeros((5, 1))),
    ],
)
def test_wrong_tensors(edit, saved):
    rewrite(saved, tensors=edit)
    assert_refused(saved, "dense/|parameters")


def test_newer_format(saved):
    rewrite(saved, metadata=_set("format_version", to="3"))
    assert_refused(saved, "upgrade nbdense")


def _to_format_1(texts):
    assert '"gemmlowp"' in texts["config"]
    texts.update(config=texts["config"].replace('"gemmlowp"', '"tflite"'), format_version="1")


def test_rounding_of_format_1(tmp_path):
    """The rounding "tflite" of then has another name now, and the integers stay."""
    x = np.random.default_rng(2).normal(size=(200, 5))
    float_model = make_model([5, 9, 3], ["relu", "linear"], "mse", "sgd")
    for make, name in ((quantize, "quantized"), (quantize_aware, "aware")):
        model, path = make(float_model, x, rounding="gemmlowp"), tmp_path / f"{name}.safetensors"
        model.save(path)
        rewrite(path, metadata=_to_format_1)
        loaded = load_model(path)
        if name == "quantized":
            assert loaded.network.rounding == loaded.network.report["options"]["rounding"] == "gemmlowp"
            np.testing.assert_array_equal(loaded.predict_integers(x), model.predict_integers(x))
        else:
            assert quantize(loaded, x).network.rounding == "gemmlowp"


@pytest.mark.parametrize("version", ["", "one", "-1"])
def test_format_without_a_number(version, saved):
    rewrite(saved, metadata=_set("format_version", to=version))
    assert_refused(saved, "format_version")


@pytest.mark.parametrize("claim", [2**20, 2**40, 2**63 - 1, 2**64 - 1])
def test_huge_header(claim, saved):
    saved.write_bytes(struct.pack("<Q", claim) + saved.read_bytes()[8:])
    assert_refused(saved)


@pytest.mark.parametrize("units", [10**6, 10**9, 10**18])
def test_huge_layers_allocate_nothing(units, saved):
    rewrite(saved, config=_set("layers", 1, "config", "units", to=units))
    tracemalloc.start()
    try:
        assert_refused(saved, "parameters")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_huge_tensor_claims(saved):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["weights/dense/kernel"]["shape"] = [2**31, 2**31]
    text = json.dumps(header).encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert_refused(saved)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.nbd"):
        load_model(tmp_path / "nothing.nbd")


# -- writing --------------------------------------------------------------------------------------------------------


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_model([2, 1], ["linear"]).save(tmp_path / "nowhere" / "m")
    assert not list(tmp_path.iterdir())


def test_over_a_folder(tmp_path):
    (tmp_path / "m").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        make_model([2, 1], ["linear"]).save(tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("write", [lambda model, path: model.save(path), to_onnx])
def test_a_path_that_ends_as_a_folders(write, tmp_path):
    """A file would get the name of the folder that was meant."""
    with pytest.raises(IsADirectoryError, match="m/: it is a folder's path; add the file's name"):
        write(make_model([2, 1], ["linear"]), f"{tmp_path}/m/")
    assert not list(tmp_path.iterdir())


def test_over_a_pipe(tmp_path):
    if not hasattr(os, "mkfifo"):
        return  # Windows has none in folders
    os.mkfifo(tmp_path / "m")
    with pytest.raises(OSError, match="m: it is a device or a pipe; give a file's path"):
        make_model([2, 1], ["linear"]).save(tmp_path / "m")
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file(step, error, saved, monkeypatch):
    old = saved.read_bytes()

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        make_model([2, 1], ["linear"]).save(saved)
    monkeypatch.setattr(os, "link", fail)  # by which a new file gets its name, where it had none
    with pytest.raises(type(error)):
        make_model([2, 1], ["linear"]).save(saved.with_name("new"))
    monkeypatch.undo()
    assert saved.read_bytes() == old
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_writes_are_the_same_every_time(saved):
    first = saved.read_bytes()
    load_model(saved).save(saved)
    assert saved.read_bytes() == first
