"""Pipelines as ONNX: every kind of preprocessing and of label, compared with scikit-learn in onnxruntime."""

import json
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.export import pipeline_to_onnx, to_onnx
from nbdense.export.pipeline import sklearn
from tests.support.pipelines import PEOPLE, ROMAN, columns, fit, people, run

IRIS, SPECIES = load_iris(return_X_y=True)
IRIS = IRIS.astype(np.float32)
HOLES = np.where(np.random.default_rng(0).random(IRIS.shape) < 0.1, np.nan, IRIS).astype(np.float32)


NUMERIC = {
    "none": [],
    "StandardScaler": [StandardScaler()],
    "MinMaxScaler": [MinMaxScaler()],
    "RobustScaler": [RobustScaler()],
    "PCA": [StandardScaler(), PCA(2)],
    "SelectKBest": [SelectKBest(k=2)],
    "PolynomialFeatures": [PolynomialFeatures(2), StandardScaler()],
    "FeatureUnion": [FeatureUnion([("pca", PCA(1)), ("scaled", StandardScaler())])],
    "passthrough": ["passthrough", StandardScaler(), None],
    "columns by number": [ColumnTransformer([("scaled", StandardScaler(), [0, 2])], remainder="passthrough")],
}


@pytest.mark.parametrize("steps", NUMERIC)
def test_numbers(steps):
    pipeline = fit(NUMERIC[steps], IRIS, SPECIES)
    model = pipeline_to_onnx(pipeline, X=IRIS)
    for size in (1, 7, 64):
        label, probabilities = run(model, input=IRIS[-size:])
        np.testing.assert_array_equal(label, pipeline.predict(IRIS[-size:]))
        np.testing.assert_allclose(probabilities, pipeline.predict_proba(IRIS[-size:]), atol=1e-5)
        assert (label.dtype, probabilities.dtype) == (np.int64, np.float32)
    assert not any(node.op_type == "ZipMap" for node in model.graph.node)
    assert [entry.name for entry in model.graph.input] == ["input"]
    assert [entry.name for entry in model.graph.output] == ["label", "probabilities"]
    shapes = [[d.dim_param or d.dim_value for d in e.type.tensor_type.shape.dim] for e in model.graph.output]
    assert shapes == [["batch"], ["batch", 3]]


def test_holes_are_filled_in_the_graph():
    pipeline = fit([SimpleImputer(), StandardScaler()], HOLES, SPECIES)
    label, probabilities = run(pipeline_to_onnx(pipeline, X=HOLES), input=HOLES)
    np.testing.assert_array_equal(label, pipeline.predict(HOLES))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(HOLES), atol=1e-5)


LABELS = {
    "strings": np.array(["setosa", "versicolor", "virginica"])[SPECIES],
    "objects": np.array(["å", "b", "ж"], object)[SPECIES],
    "two strings": np.array(["no", "yes", "yes"])[SPECIES],
    "bools": SPECIES > 0,
    "int8": SPECIES.astype(np.int8) - 1,
    "whole floats": SPECIES + 1.0,
    "many": np.stack([SPECIES > 0, SPECIES > 1], axis=1).astype(int),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind):
    y = LABELS[kind]
    pipeline = fit([StandardScaler()], IRIS, y)
    label, probabilities = run(pipeline_to_onnx(pipeline, X=IRIS), input=IRIS)
    expected = pipeline.predict(IRIS)
    assert label.dtype == (object if y.dtype.kind in "OU" else np.int64)
    assert label.shape == expected.shape
    assert list(label.ravel()) == list(expected.ravel())
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(IRIS), atol=1e-5)


def test_columns_of_several_types():
    pipeline = fit([columns()], PEOPLE, ROMAN)
    model = pipeline_to_onnx(pipeline, X=PEOPLE)
    types = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.input}
    real, word, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.STRING, onnx.TensorProto.INT64
    assert types == {"age": real, "height": real, "city": word, "rooms": real, "number": whole}
    strangers = people(9)
    strangers.loc[3, "city"] = "Lima"
    strangers.loc[4, "height"] = np.nan
    dtypes = {real: np.float32, word: object, whole: np.int64}
    feed = {name: strangers[name].to_numpy().astype(dtypes[types[name]]).reshape(-1, 1) for name in types}
    label, probabilities = run(model, **feed)
    assert list(label) == list(pipeline.predict(strangers))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(strangers), atol=1e-5)
    with pytest.raises(ValueError, match="give X"):
        pipeline_to_onnx(pipeline)


def test_other_columns():
    bools = ColumnTransformer([("scaled", StandardScaler(), ["age"]), ("as they are", "passthrough", ["rents"])])
    ordinal = ColumnTransformer([("order", OrdinalEncoder(), ["city"]), ("scaled", MinMaxScaler(), ["height"])])
    for step in (bools, ordinal):
        pipeline_to_onnx(fit([step], PEOPLE, ROMAN), X=PEOPLE)
    words = PEOPLE[["city"]]
    model = pipeline_to_onnx(fit([OneHotEncoder()], words, ROMAN), X=words)  # its rows are sparse
    assert list(run(model, city=words.to_numpy().astype(object))[0]) == list(ROMAN)
    matrix = words.to_numpy().astype(object)
    model = pipeline_to_onnx(fit([OneHotEncoder()], matrix, ROMAN), X=matrix)
    assert list(run(model, input=matrix)[0]) == list(ROMAN)
    numbers = PEOPLE[["age", "height", "rents"]]  # without a ColumnTransformer they are one tensor
    model = pipeline_to_onnx(fit([StandardScaler()], numbers, ROMAN), X=numbers)
    assert [entry.name for entry in model.graph.input] == ["input"]


@pytest.mark.parametrize("outputs", [1, 2])
def test_values(outputs):
    X, y = load_diabetes(return_X_y=True)
    X, y = X.astype(np.float32), (np.stack([y, -2 * y], axis=1) / 100)[:, :outputs].squeeze()
    pipeline = fit([StandardScaler()], X, y, MLPRegressor, activation="gelu")
    model = pipeline_to_onnx(pipeline)
    assert [entry.name for entry in model.graph.output] == ["output"]
    (found,) = run(model, input=X)
    np.testing.assert_allclose(found, pipeline.predict(X).reshape(len(X), -1), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="regressor"):
        pipeline_to_onnx(pipeline, class_names=["a", "b"])


def test_estimator_alone_and_search():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search = GridSearchCV(MLPClassifier((4,), random_state=0, max_iter=5), {"alpha": [0.1, 1.0]}, cv=2).fit(X, y)
    model = pipeline_to_onnx(search)
    assert [node.op_type for node in model.graph.node][:3] == ["Gemm", "Relu", "Gemm"]
    assert model.SerializeToString() == pipeline_to_onnx(search.best_estimator_).SerializeToString()
    np.testing.assert_array_equal(run(model, input=X)[0], search.predict(X))


@pytest.mark.parametrize("opset", [13, 16, 17, 18, 21])
def test_opsets(opset):
    model = pipeline_to_onnx(fit([StandardScaler()], IRIS, SPECIES, activation="gelu"), X=IRIS, opset=opset)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
    assert model.ir_version == {13: 7, 16: 8, 17: 8, 18: 8, 21: 10}[opset]


def test_what_the_file_says():
    pipeline = fit([StandardScaler()], IRIS, LABELS["int8"])
    metadata = [
        {entry.key: entry.value for entry in pipeline_to_onnx(pipeline, **options).metadata_props}
        for options in ({}, {"class_names": ["a", "b", "c"], "metadata": {"score": 0.5}})
    ]
    assert json.loads(metadata[0]["class_names"]) == ["-1", "0", "1"]
    assert json.loads(metadata[1]["class_names"]) == ["a", "b", "c"]
    assert metadata[1]["score"] == "0.5" and metadata[1]["nbdense_flavour"] == "float"
    with pytest.raises(ValueError, match="class_names must be 3 different strings"):
        pipeline_to_onnx(pipeline, class_names=["a", "b"])


def test_same_bytes_in_every_process(tmp_path):
    pipeline = fit([columns()], PEOPLE, ROMAN)
    (tmp_path / "fitted").write_bytes(pickle.dumps((pipeline, PEOPLE)))
    script = (
        "import pickle, sys; from nbdense.export import pipeline_to_onnx\n"
        "pipeline, X = pickle.load(open('fitted', 'rb'))\n"
        "pipeline_to_onnx(pipeline, sys.argv[1], X=X, verify=False)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, f"{seed}.onnx"], cwd=tmp_path, env=environment, check=True)
    pipeline_to_onnx(pipeline, tmp_path / "here.onnx", X=PEOPLE)
    contents = {(tmp_path / name).read_bytes() for name in ("1.onnx", "2.onnx", "here.onnx")}
    assert len(contents) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.onnx", "2.onnx", "fitted", "here.onnx"]


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [("output_bias", "what the pipeline predicts"), ("classes", "103 of 150 rows get another label")],
)
def test_difference_is_found_and_nothing_written(tmp_path, monkeypatch, spoilt, said):
    pipeline = fit([StandardScaler()], IRIS, SPECIES)
    convert = sklearn._convert

    def spoil(*arguments):
        model = convert(*arguments)
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == spoilt)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[::-1].copy(), spoilt))
        return model

    monkeypatch.setattr(sklearn, "_convert", spoil)
    with pytest.raises(RuntimeError, match=said):
        pipeline_to_onnx(pipeline, tmp_path / "model.onnx", X=IRIS)
    assert not list(tmp_path.iterdir())
    pipeline_to_onnx(pipeline, X=IRIS, verify=False)


class Unknown(TransformerMixin, BaseEstimator):
    """A step without a converter."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def test_refusals(tmp_path):
    pipeline = fit([StandardScaler()], IRIS, SPECIES)
    with pytest.raises(TypeError, match="ends in LogisticRegression"):
        pipeline_to_onnx(make_pipeline(StandardScaler(), LogisticRegression()))
    with pytest.raises(TypeError, match="got StandardScaler"):
        pipeline_to_onnx(StandardScaler())
    with pytest.raises(NotFittedError):
        pipeline_to_onnx(make_pipeline(StandardScaler(), MLPClassifier()))
    with pytest.raises(ValueError, match="opset must be from 13 to .*got 28"):
        pipeline_to_onnx(pipeline, opset=28)
    with pytest.raises(ValueError, match="opset must be from 13"):
        pipeline_to_onnx(pipeline, opset=12)
    with pytest.raises(ValueError, match="at least one row"):
        pipeline_to_onnx(pipeline, X=IRIS[:0])
    with pytest.raises(ValueError, match="X has 3 columns, but the pipeline was fitted on 4"):
        pipeline_to_onnx(pipeline, X=IRIS[:, :3])
    with pytest.raises(ValueError, match="X: masked element in row 0, column 3"):
        pipeline_to_onnx(pipeline, X=np.ma.masked_less(IRIS, 1))
    with pytest.raises(ValueError, match=r"fitted on one class only, setosa, .*fit it on rows of two"):
        pipeline_to_onnx(fit([StandardScaler()], IRIS, np.full(len(IRIS), "setosa")), X=IRIS)
    towns = PEOPLE[["city"]]
    strangers = towns.replace("Rome", "Lima")
    with pytest.raises(ValueError, match="does not take these rows.*unknown categories"):
        pipeline_to_onnx(fit([OneHotEncoder()], towns, ROMAN), X=strangers)
    pipeline_to_onnx(fit([OneHotEncoder()], towns, ROMAN), X=strangers, verify=False)
    with pytest.raises(ValueError, match="neither numbers nor strings"):
        pipeline_to_onnx(pipeline, X=PEOPLE.to_numpy()[:, :4])
    gaps = PEOPLE[["city"]].astype(object)
    gaps.iloc[2, 0] = None
    with pytest.raises(ValueError, match=r"column 'city' holds strings and None; ONNX's strings have no missing cell"):
        pipeline_to_onnx(fit([OneHotEncoder()], gaps, ROMAN), X=gaps)
    with pytest.raises(ValueError, match="skl2onnx cannot convert the pipeline.*Unknown"):
        pipeline_to_onnx(fit([Unknown()], IRIS, SPECIES), X=IRIS)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        pipeline_to_onnx(pipeline, tmp_path / "no" / "model.onnx")


def test_skl2onnx_itself_converts_them():
    from skl2onnx import to_onnx
    from sklearn.ensemble import VotingClassifier

    from nbdense.export import register_converters

    register_converters()
    mlp = fit([], IRIS, SPECIES)[-1]
    label, maps = run(to_onnx(mlp, IRIS[:1], target_opset=17), X=IRIS)
    np.testing.assert_array_equal(label, mlp.predict(IRIS))
    assert maps[0][2] == pytest.approx(mlp.predict_proba(IRIS)[0, 2], abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        voters = [("a", MLPClassifier(max_iter=3)), ("b", GaussianNB())]
        both = VotingClassifier(voters, voting="soft", flatten_transform=False).fit(IRIS, SPECIES)
    model = to_onnx(both, IRIS[:1], target_opset=17, options={id(both): {"zipmap": False}})
    np.testing.assert_allclose(run(model, X=IRIS)[1], both.predict_proba(IRIS), atol=1e-5)
    doubles = to_onnx(mlp, IRIS[:1].astype(np.float64), target_opset=17, options={id(mlp): {"zipmap": False}})
    np.testing.assert_allclose(run(doubles, X=IRIS.astype(np.float64))[1], mlp.predict_proba(IRIS), atol=1e-5)
    with pytest.raises(ValueError, match="fitted on one class only, 2,"):
        to_onnx(fit([], IRIS, np.full(len(IRIS), 2))[-1], IRIS[:1])


def test_without_skl2onnx():
    script = "import sys; sys.modules['skl2onnx'] = None; from nbdense import pipeline_to_onnx; pipeline_to_onnx(None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("pip install 'nbdense[skl2onnx]'")


def test_to_onnx_takes_pipelines():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=3, tol=0.0, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(IRIS, SPECIES)
    names = ["a", "b", "c"]
    assert to_onnx(pipeline, class_names=names) == pipeline_to_onnx(pipeline, class_names=names)
    with pytest.raises(ValueError, match="a pipeline is written in the flavour 'float'"):
        to_onnx(pipeline, flavour="qdq")
