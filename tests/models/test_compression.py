"""Compressed files: arrays come back bit for bit, damage is refused by one error, claims are bounded."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import nbdense as nb
from nbdense.compression import LARGEST_RATIO, compressed_bytes, open_tensors
from nbdense.files import FileFormatError
from tests.support.builders import make_model

DTYPES = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]


def written(folder, tensors, config=None):
    path = folder / "m"
    path.write_bytes(compressed_bytes("something", config or {}, tensors))
    return path


def assert_comes_back(path, tensors, config=None):
    file = open_tensors(path)
    assert (file.kind, file.config) == ("something", config or {})
    assert file.shapes == {name: value.shape for name, value in tensors.items()}
    for name, value in tensors.items():
        read = file.read(name, value.shape)
        assert read.dtype == value.dtype and read.tobytes() == value.tobytes(), name
        read[...] = 0  # it can be written to


@st.composite
def arrays(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype).reshape(shape)
    if dtype.kind == "b":
        values = rng.random(shape) < 0.5
    few = draw(st.sampled_from([0, 1, 2, 200]))
    if few and values.size:
        values = rng.choice(values.ravel()[:few], shape)
    values[rng.random(shape) < draw(st.sampled_from([0, 0.05, 0.5, 0.999, 1]))] = 0
    return values


@given(st.lists(arrays(), max_size=4))
def test_arrays_come_back(tmp_path_factory, drawn):
    tensors = {f"t{i}": value for i, value in enumerate(drawn)}
    tensors |= {f"mask{i}": value != 0 for i, value in enumerate(drawn)}
    assert_comes_back(written(tmp_path_factory.mktemp("c"), tensors), tensors)


def test_long_gaps_negative_zeros_and_not_a_number(tmp_path):
    long = np.zeros((3, 1000), np.float32)
    for place in (0, 254, 255, 509, 510, 511, 2999):
        long.ravel()[place] = place + 1
    odd = np.array([0.0, -0.0, np.nan, np.inf, 0.0, 0.0], np.float32)
    ends = np.zeros(256, np.int8)
    ends[255] = 1
    tensors = {"long": long, "odd": odd, "ends": ends, "mask": odd != 0, "empty": np.zeros((0, 3))}
    assert_comes_back(written(tmp_path, tensors, {"a": [1, None]}), tensors, {"a": [1, None]})


def test_zeros_take_next_to_nothing_and_the_claim_is_bounded(tmp_path):
    """A file's size limits what it may claim: a large model of zeros is padded to it."""
    tensors = {"zeros": np.zeros((4000, 4000), np.float32)}
    path = written(tmp_path, tensors)
    size = path.stat().st_size
    assert 64_000_000 / LARGEST_RATIO < size < 64_000_000 / LARGEST_RATIO + 1500
    assert open_tensors(path).read("zeros").shape == (4000, 4000)
    small = written(tmp_path, {"zeros": np.zeros((100, 100))})
    assert small.stat().st_size < 1500


@pytest.fixture
def pruned(tmp_path):
    rng = np.random.default_rng(1)
    model = make_model([9, 30, 2], ["relu", "softmax"], "sparse_categorical_crossentropy", "adam", dtype="float32")
    model.fit(rng.normal(size=(40, 9)), rng.integers(0, 2, 40), verbose=0)
    model = nb.prune(model, 0.8)
    model.fit(rng.normal(size=(40, 9)), rng.integers(0, 2, 40), verbose=0)
    return model


def test_models_come_back_and_go_on(pruned, tmp_path):
    pruned.save(tmp_path / "plain")
    pruned.save(tmp_path / "small", compressed=True)
    assert (tmp_path / "small").stat().st_size < 0.6 * (tmp_path / "plain").stat().st_size
    plain, small = nb.load_model(tmp_path / "plain"), nb.load_model(tmp_path / "small")
    x, y = np.random.default_rng(2).normal(size=(40, 9)), np.arange(40) % 2
    for _ in range(2):
        assert plain.network.params.tobytes() == small.network.params.tobytes()
        assert plain.network.mask.tobytes() == small.network.mask.tobytes()
        assert plain.state[1:].tobytes() == small.state[1:].tobytes()
        assert plain.optimizer.batches == small.optimizer.batches
        plain.fit(x, y, verbose=0)
        small.fit(x, y, verbose=0)
    small.save(tmp_path / "again", compressed=True)
    small.load_weights(tmp_path / "small")
    np.testing.assert_array_equal(small.get_weights()[0], pruned.get_weights()[0])


@pytest.mark.parametrize(
    "options",
    [{}, {"bits": 4}, {"scheme": "dynamic"}, {"scheme": "weight_only", "bits": 4, "granularity": "block"}],
    ids=str,
)
def test_quantized_models_come_back(pruned, options, tmp_path):
    x = np.random.default_rng(3).normal(size=(60, 9)).astype(np.float32)
    quantized = nb.quantize(pruned, x, **options)
    quantized.save(tmp_path / "q", compressed=True)
    loaded = nb.load_model(tmp_path / "q")
    np.testing.assert_array_equal(loaded.predict(x), quantized.predict(x))
    tensors, config = quantized.network.to_tensors()
    others, other_config = loaded.network.to_tensors()
    assert config == other_config
    assert {name: value.tobytes() for name, value in tensors.items()} == {
        name: value.tobytes() for name, value in others.items()
    }


def test_the_same_model_gives_the_same_bytes(pruned, tmp_path):
    contents = []
    for name in ("a", "b"):
        pruned.save(tmp_path / name, compressed=True)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_every_byte_that_changes_is_seen(pruned, tmp_path):
    path = tmp_path / "m"
    pruned.save(path, compressed=True)
    content, x = path.read_bytes(), np.ones((3, 9), np.float32)
    expected = pruned.predict(x)
    start = 8 + struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    for place in [*range(0, start, 7), *range(start, len(content), 23)]:
        changed = bytearray(content)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:  # a letter of what nobody reads may change
            np.testing.assert_array_equal(nb.load_model(path).predict(x), expected)
            assert place < start
        except FileFormatError as error:
            assert str(path) in str(error)
    for length in range(0, len(content), 41):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError):
            nb.load_model(path)


def rewritten(path, edit):
    """The file with its metadata's description, or one of its tensors, edited; its checksum is right again."""
    import zlib

    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    texts = json.loads(content[8 : 8 + length])["__metadata__"]
    arrays, config = load_tensors(content), json.loads(texts["config"])
    edit(arrays, config)
    if "checksum" in config:
        checksum = 0
        for name in ("description", "gaps", "symbols", "numbers", "padding"):
            checksum = zlib.crc32(arrays.get(name, np.zeros(0, np.uint8)).tobytes(), checksum)
        config["checksum"] = checksum
    path.write_bytes(save_tensors(arrays, {**texts, "config": json.dumps(config)}))


def described(change):
    """An edit of the description that is packed."""
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]

    def edit(arrays, config):
        text = json.loads(lzma.decompress(arrays["description"].tobytes(), lzma.FORMAT_RAW, filters=filters))
        change(text)
        raw = json.dumps(text).encode()
        config["sizes"]["description"] = len(raw)
        packed = lzma.compress(raw, lzma.FORMAT_RAW, filters=filters)
        arrays["description"] = np.frombuffer(packed, np.uint8)

    return edit


def set_entry(place, value):
    return described(lambda text: text["tensors"][0].__setitem__(place, value))


EDITS = {
    "size": (lambda a, c: c["sizes"].update(gaps=2**40), "claims to unpack to 1,099,511,"),
    "sizes": (lambda a, c: c["sizes"].update(gaps=c["sizes"]["gaps"] + 1), "does not unpack to the"),
    "less": (lambda a, c: c["sizes"].update(gaps=c["sizes"]["gaps"] - 1), "does not unpack to the"),
    "negative": (lambda a, c: c["sizes"].update(gaps=-1), "-1 is no count"),
    "stream": (lambda a, c: a.update(numbers=a["numbers"][:-9]), "does not unpack|cannot be unpacked"),
    "no stream": (lambda a, c: a.pop("gaps"), "tensor 'gaps' is missing"),
    "no checksum": (lambda a, c: c.pop("checksum"), "is damaged"),
    "shape": (set_entry(2, [2**20, 2**20]), "claims to unpack to"),
    "dtype": (set_entry(1, "object"), "an entry of it is no tensor's"),
    "form": (set_entry(3, "dense!"), "unknown form 'dense!'"),
    "table": (set_entry(4, 257), "a table of 257 elements"),
    "count": (set_entry(5, 1), "its tensors take"),
    "mask": (
        described(lambda t: t["tensors"][-1].__setitem__(slice(3, None), ["nonzero", "x"])),
        "does not come before",
    ),
    "no tensors": (described(lambda t: t.pop("tensors")), "is damaged"),
    "kind": (described(lambda t: t.update(kind="other")), "holds a 'other'"),
}


@pytest.mark.parametrize("name", EDITS)
def test_claims_that_do_not_fit_are_refused(name, pruned, tmp_path):
    path = tmp_path / "m"
    pruned.save(path, compressed=True)
    edit, words = EDITS[name]
    rewritten(path, edit)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=words) as caught:
            nb.load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(pruned, tmp_path, monkeypatch):
    path = tmp_path / "m"
    pruned.save(path, compressed=True)
    before = path.read_bytes()
    pruned.parameters["dense/kernel"][...] = 1
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(OSError, match="no space left"):
        pruned.save(path, compressed=True)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
