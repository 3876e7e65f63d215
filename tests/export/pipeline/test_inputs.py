"""Inputs of exported Pipelines: their names are the user's, and their precision keeps his labels."""

import json
import re

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)

from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.export import pipeline_to_onnx
from nbdense.export.pipeline.tensor_names import rename_tensors
from tests.support.pipelines import PEOPLE, ROMAN, columns, fit, run

# What programs that read skl2onnx's names do not expect, and what else in the graph could be called so.
ODD_NAMES = ["a b", "a_b", "x.1", "a-b", "(cm)", "1st", "7", "label", "probabilities", "label_", "input", "batch"]


def odd_columns(names, estimator=MLPClassifier):
    """Numbers, words and whole numbers under these names, and a pipeline that was fitted on them."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.standard_normal((80, len(names))).astype(np.float32), columns=names)
    words, wholes, dropped = list(names[::4]), list(names[1::4]), list(names[2::4])
    table[words] = rng.choice(["Rome", "Oslo", "Kyōto"], (80, len(words)))
    table[wholes] = rng.integers(0, 3, (80, len(wholes)))
    kinds = [("words", OneHotEncoder(), words), ("wholes", OneHotEncoder(), wholes), ("none", "drop", dropped)]
    step = ColumnTransformer(kinds, remainder=make_pipeline(SimpleImputer(), StandardScaler()))
    target = rng.integers(0, 3, 80)
    return table, fit([step], table, target, estimator), [name for name in names if name not in dropped]


FLOAT, DOUBLE, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64
DTYPES = {FLOAT: np.float32, DOUBLE: np.float64, INT64: np.int64, onnx.TensorProto.STRING: object}


def element_types(model):
    return {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.input}


def run_on(model, table):
    """onnxruntime fed with the table's columns under their own names, or where there is one input, with all of them."""
    types = element_types(model)
    labels = {"input": list(table.columns)} | {str(label): [label] for label in table.columns}
    return run(model, **{name: table[labels[name]].to_numpy().astype(DTYPES[kind]) for name, kind in types.items()})


def drawn_names():
    """Fifty names: twenty drawn ones, and thirty that tensors of such a graph have."""
    rng = np.random.default_rng(2)
    letters = list("ab1_ .-()[]%/\\:'\"\n\t\0éя本🙂")
    names = {"".join(rng.choice(letters, rng.integers(1, 6))) for _ in range(40)}
    table, pipeline, _ = odd_columns([f"column {number}" for number in range(50)])
    graph = pipeline_to_onnx(pipeline, X=table).graph
    tensors = {name for node in graph.node for name in (*node.input, *node.output)}
    tensors -= {entry.name for entry in graph.input}
    return [str(name) for name in rng.permutation([*sorted(names)[:20], *rng.permutation(sorted(tensors))[:30]])]


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("source", ["odd", "ends", "drawn"])
def test_any_column_name_is_an_input_name(source, estimator):
    names = {"odd": lambda: ODD_NAMES, "ends": lambda: ["output", "output_", "variable", "x"], "drawn": drawn_names}[
        source
    ]()
    assert len(set(names)) == {"odd": 12, "ends": 4, "drawn": 50}[source]
    table, pipeline, used = odd_columns(names, estimator)
    model = pipeline_to_onnx(pipeline, X=table)
    assert [entry.name for entry in model.graph.input] == used
    found = run_on(model, table)
    if estimator is MLPClassifier:
        assert list(found[0]) == list(pipeline.predict(table))
    expected = pipeline.predict_proba(table) if estimator is MLPClassifier else pipeline.predict(table)
    np.testing.assert_allclose(found[-1], expected.reshape(len(table), -1), atol=1e-5)
    assert model == pipeline_to_onnx(pipeline, X=table, verify=False)


def test_outputs_make_room():
    for names, estimator, outputs in [
        (["label", "label_", "c", "probabilities"], MLPClassifier, ["label__", "probabilities_"]),
        (["a", "b", "label", "d"], MLPClassifier, ["label", "probabilities"]),  # that column is dropped
        (["output", "b", "c", "output_"], MLPRegressor, ["output__"]),
        (["a", "b", "c", "label"], MLPRegressor, ["output"]),
    ]:
        table, pipeline, _ = odd_columns(names, estimator)
        model = pipeline_to_onnx(pipeline, X=table)
        assert [entry.name for entry in model.graph.output] == outputs
        said = json.loads({entry.key: entry.value for entry in model.metadata_props}["nbdense_outputs"])
        assert list(said) == (["output"] if estimator is MLPRegressor else ["label", "probabilities"])
        assert list(said.values()) == outputs


def test_labels_of_columns_that_are_no_strings():
    table, _, _ = odd_columns(["a", "b", "c", "d"])
    step = ColumnTransformer([("word", OneHotEncoder(), [0]), ("number", StandardScaler(), [1, 3])])
    for labels, names in [
        ([7, 8, 9, 10], ["7", "8", "10"]),
        (pd.MultiIndex.from_product([["x", "y"], [1, 2]]), ["('x', 1)", "('x', 2)", "('y', 2)"]),
    ]:
        table.columns = labels
        pipeline = fit([step], table, np.arange(80) % 2)
        model = pipeline_to_onnx(pipeline, X=table)
        assert [entry.name for entry in model.graph.input] == names
        assert list(run_on(model, table)[0]) == list(pipeline.predict(table))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "", "c", "d"], "column 1 has an empty name"),
        (["a", "b", "c", "\ud800"], r"column 3's name '\\ud800' is no valid Unicode"),
        ([1, "1", "c", "d"], "names must differ.*columns 0 and 1 are both '1'"),
        (["a", "b", "c", "b"], "names must differ.*columns 1 and 3 are both 'b'"),
    ],
)
def test_names_that_onnx_does_not_have(names, said):
    table, _, _ = odd_columns(["a", "b", "c", "d"])
    step = ColumnTransformer([("word", OneHotEncoder(), [0]), ("number", StandardScaler(), [1, 3])])
    pipeline = fit([step], table.set_axis(range(4), axis=1), np.arange(80) % 2)
    with pytest.raises(ValueError, match=said):
        pipeline_to_onnx(pipeline, X=table.set_axis(pd.Index(names, dtype=object), axis=1))


def test_columns_of_one_tensor_need_no_names():
    numbers = PEOPLE[["age", "height"]].set_axis(pd.Index(["", "\ud800"], dtype=object), axis=1)
    model = pipeline_to_onnx(fit([StandardScaler()], numbers, ROMAN), X=numbers)
    assert [entry.name for entry in model.graph.input] == ["input"]


SELECTIONS = {
    "mask": [True, False, False, True],
    "array of numbers": np.array([0, 3]),
    "from the end": [-1, 0],
    "slice of names": slice("age", "height"),
    "open slice": slice(-3, None),
    "function": lambda table: ["rooms", "age"],
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_columns_are_selected_in_every_way(selection):
    table = PEOPLE[["age", "height", "unused", "rooms"]].astype(np.float32)
    inner = make_pipeline("passthrough", StandardScaler())
    step = ColumnTransformer([("some", inner, SELECTIONS[selection])], remainder=MinMaxScaler())
    pipeline = fit([None, step], table, ROMAN)
    model = pipeline_to_onnx(pipeline, X=table)
    assert list(run_on(model, table)[0]) == list(pipeline.predict(table))


def test_columns_are_found_by_name():
    pipeline = fit([columns()], PEOPLE, ROMAN)
    other = PEOPLE.assign(more=0.0)[["more", "number", "city", "height", "rooms", "age"]]  # "unused" is not there
    model = pipeline_to_onnx(pipeline, X=other)
    assert model == pipeline_to_onnx(pipeline, X=PEOPLE)
    fewer = PEOPLE.drop(columns=["rooms", "age"])
    with pytest.raises(ValueError, match="does not take these rows"):
        pipeline_to_onnx(pipeline, X=fewer)
    with pytest.raises(ValueError, match="X lacks columns that the pipeline reads: 'age', 'rooms'"):
        pipeline_to_onnx(pipeline, X=fewer, verify=False)


def test_rename_reaches_the_graphs_inside():
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    value = [helper.make_tensor_value_info(name, kind, [2]) for name in ("x", "sum", "y", "z")]
    then = helper.make_graph([helper.make_node("Add", ["x", "sum"], ["y"])], "then", [], value[2:3])
    other = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["z"])], "other", [], value[3:])
    nodes = [
        helper.make_node("Add", ["x", "two"], ["sum"]),
        helper.make_node("Greater", ["two", "x0"], ["is_more"]),
        helper.make_node("If", ["is_more"], ["out"], then_branch=then, else_branch=other),
    ]
    threshold = helper.make_tensor_value_info("x0", kind, [])
    two = helper.make_tensor("two", kind, [], [2.0])
    out = [helper.make_tensor_value_info("out", kind, [2])]
    graph = helper.make_graph(nodes, "all", [value[0], threshold], out, [two], value_info=[value[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.array([1.0, 3.0], np.float32)
    for first in (np.array(1.0, np.float32), np.array(3.0, np.float32)):
        (expected,) = run(model, x=x, x0=first)
        for new in ({"x": "sum", "x0": "y"}, {"x": "two", "x0": "z", "out": "x"}, {"x": "x0", "x0": "x"}):
            twin = onnx.ModelProto.FromString(model.SerializeToString())
            rename_tensors(twin.graph, new)
            onnx.checker.check_model(twin, full_check=True)
            assert [entry.name for entry in twin.graph.input] == [new["x"], new["x0"]]
            np.testing.assert_array_equal(run(twin, **{new["x"]: x, new["x0"]: first})[0], expected)


def hours(rows=400):
    """Timestamps within an hour, of which float32 has every 128th second, and two ordinary columns."""
    rng = np.random.default_rng(3)
    seconds = rng.integers(0, 3600, rows)
    table = pd.DataFrame({"time": 1.7e9 + seconds, "a": rng.normal(3, 1, rows), "b": rng.standard_normal(rows)})
    return table, np.where((seconds > 1800) ^ (table["a"] > 3), "late", "early"), seconds / 1800 + table["a"]


TIME_SOURCES = {
    "array": lambda table: table.to_numpy(),
    "frame": lambda table: table,
    "whole numbers": lambda table: table.astype({"time": np.int64}),
    "Python's numbers": lambda table: table.astype({"time": np.int64}).astype({"time": object}),
}
TIME_STEPS = {
    "scaled": lambda: [StandardScaler()],
    "filled": lambda: [SimpleImputer(), MinMaxScaler()],
    "filled otherwise": lambda: [SimpleImputer(missing_values=1.7e9), StandardScaler()],
    "PCA": lambda: [PCA(2), StandardScaler()],
    "columns": lambda: [
        ColumnTransformer([("time", make_pipeline(SimpleImputer(), StandardScaler()), [0, 1])], remainder="passthrough")
    ],
    "codes": lambda: [
        ColumnTransformer([("minute", OneHotEncoder(handle_unknown="ignore"), [0])], remainder=StandardScaler())
    ],
}


HOLES = {"filled": np.nan, "filled otherwise": 1.7e9}


@pytest.mark.parametrize(
    ("source", "steps"),
    [("frame", steps) for steps in TIME_STEPS]
    + [(source, steps) for source in ("array", "whole numbers", "Python's numbers") for steps in ("scaled", "columns")],
)
def test_columns_far_from_zero_keep_their_digits(source, steps):
    table, labels, values = hours()
    table.loc[::7, "time"] = HOLES.get(steps, table["time"][::7])
    X = TIME_SOURCES[source](table)
    for y, estimator in ((labels, MLPClassifier), (values, MLPRegressor)):
        pipeline = fit(TIME_STEPS[steps](), X, y, estimator, max_iter=60)
        model = pipeline_to_onnx(pipeline, X=X)
        assert set(element_types(model).values()) == {DOUBLE}
        assert model == pipeline_to_onnx(pipeline, X=X, verify=False)
        found = run_on(model, table)
        assert found[-1].dtype == np.float32
        if estimator is MLPClassifier:
            assert list(found[0]) == list(pipeline.predict(X))
        expected = pipeline.predict_proba(X) if estimator is MLPClassifier else pipeline.predict(X)
        np.testing.assert_allclose(found[-1], expected.reshape(len(X), -1), atol=1e-5)


CANNOT_BE_FLOAT64 = {
    "a step without a float64 form": ([StandardScaler(), PolynomialFeatures(2)], "With float64 inputs: .*Concat"),
    "a step that computes in float32": ([KBinsDiscretizer(8, encode="onehot-dense")], r"\(with float64 inputs too\)"),
}


@pytest.mark.parametrize("case", CANNOT_BE_FLOAT64)
def test_what_cannot_be_float64_is_refused_with_the_damage(case, tmp_path):
    table, labels, values = hours()
    steps, reason = CANNOT_BE_FLOAT64[case]
    for y, estimator in ((labels, MLPClassifier), (values, MLPRegressor)):
        pipeline = fit(steps, table, y, estimator, max_iter=60)
        with pytest.raises(RuntimeError, match=reason) as caught:
            pipeline_to_onnx(pipeline, tmp_path / "model.onnx", X=table)
        assert not list(tmp_path.iterdir())
        said = str(caught.value)
        assert "coarse for column 'time' (steps of 128 at deviations of 1.03e+03)" in said and "'a'" not in said
        damaged = pipeline_to_onnx(pipeline, X=table, verify=False)
        assert element_types(damaged) == {"input": FLOAT}
        found = run_on(damaged, table)
        if estimator is MLPClassifier:
            others = int((found[0] != pipeline.predict(table)).sum())
            assert others > 0 and f"predicts: {others} of 400 rows get another label" in said
        else:
            farthest = np.abs(found[0].ravel() - pipeline.predict(table)).max()
            assert re.search(rf"predicts: \d+ of 400 rows have other outputs, by up to {farthest:.3g}", said)


def test_ordinary_columns_stay_float32():
    rng = np.random.default_rng(4)
    places = np.stack([rng.normal(37, 2, 500), rng.normal(-120, 2, 500), rng.normal(2000, 10, 500).round()], axis=1)
    for X, y in ((places, places[:, 0] > 37), load_breast_cancer(return_X_y=True), load_iris(return_X_y=True)):
        for steps in ([], [StandardScaler()], [MinMaxScaler(), PolynomialFeatures(2)], [SimpleImputer(), PCA(2)]):
            for dtype in ("float32", "float64"):
                pipeline = fit(steps, X, y, dtype=dtype)
                assert element_types(pipeline_to_onnx(pipeline, X=X)) == {"input": FLOAT}
    values = np.sin(places[:, 0]) + places[:, 1] / 20
    for scale in (1e-7, 1.0, 1e5):
        pipeline = fit([StandardScaler()], places, scale * values, MLPRegressor)
        assert element_types(pipeline_to_onnx(pipeline, X=places)) == {"input": FLOAT}


def test_damage_to_small_outputs_is_seen():
    table, _, values = hours()
    pipeline = fit([StandardScaler()], table, values, MLPRegressor, max_iter=60)
    *inner, kernel, bias = pipeline[-1].model_.get_weights()
    pipeline[-1].model_.set_weights([*inner, 1e-7 * kernel, 1e-7 * bias])  # no absolute bound sees these outputs
    assert np.abs(pipeline.predict(table)).max() < 1e-6
    assert element_types(pipeline_to_onnx(pipeline, X=table)) == {"input": DOUBLE}


def test_whole_numbers_keep_their_digits():
    rng = np.random.default_rng(5)
    number = rng.choice(2**60 + np.arange(4), 200)
    table = pd.DataFrame({"number": number, "time": 1_700_000_000 + rng.integers(0, 3600, 200), "flag": number % 3 > 0})
    y = (number % 2 > 0) ^ (table["time"] > 1_700_001_800)
    step = ColumnTransformer([("number", OneHotEncoder(), ["number"]), ("rest", StandardScaler(), ["time", "flag"])])
    pipeline = fit([step], table, y, max_iter=60)
    model = pipeline_to_onnx(pipeline, X=table)
    assert element_types(model) == {"number": INT64, "time": DOUBLE, "flag": DOUBLE}
    assert list(run_on(model, table)[0]) == list(pipeline.predict(table))
    unsigned = table.assign(number=number.astype(np.uint64) + 2**63)  # int64 does not have them, float64 mixes them up
    with pytest.raises(RuntimeError, match="OneHotEncoder"):
        pipeline_to_onnx(fit([step], unsigned, y), X=unsigned)
