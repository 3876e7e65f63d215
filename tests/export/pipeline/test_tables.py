"""A table as people have them: text, missing cells, dates, through a search to ONNX in float and in int8."""

import warnings

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import nbdense as nb
from nbdense.estimators import MLPClassifier, MLPRegressor
from nbdense.export.pipeline.functions import convert_function, function_shapes, recorded


def table(rows=240):
    rng = np.random.default_rng(7)
    joined = pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 2000, rows), unit="D")
    made = pd.DataFrame(
        {
            "age": np.where(rng.random(rows) < 0.15, np.nan, rng.integers(18, 90, rows)),
            "income": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(10, 0.6, rows)),
            "city": rng.choice(["Rome", "Oslo", "Kyōto", ""], rows),
            "joined": joined,
        }
    )
    made["day"] = (made["joined"] - pd.Timestamp(0)) / pd.Timedelta(days=1)  # dates as numbers, before the pipeline
    return made


TABLE = table()
SUMMER = np.where(TABLE["joined"].dt.month.isin([5, 6, 7, 8, 9]), "summer", "winter")
YEAR = 365.25


def season(days):
    angle = 2 * np.pi * (days / YEAR)
    return np.hstack([np.sin(angle), np.cos(angle)])


def preprocessing():
    money = make_pipeline(SimpleImputer(strategy="median"), FunctionTransformer(np.log1p), StandardScaler())
    return ColumnTransformer(
        [
            ("age", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("money", money, ["income"]),
            ("season", FunctionTransformer(season), ["day"]),
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )


@pytest.fixture(scope="module")
def search():
    mlp = MLPClassifier(learning_rate_init=0.02, max_iter=60, random_state=0)
    grid = {"mlpclassifier__hidden_layer_sizes": [(2,), (16,)]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GridSearchCV(make_pipeline(preprocessing(), mlp), grid, cv=2).fit(TABLE.drop(columns="joined"), SUMMER)


def outputs(model, data):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kinds = {
        "tensor(string)": object,
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(int64)": np.int64,
    }
    feed = {entry.name: data[[entry.name]].to_numpy(kinds[entry.type]) for entry in session.get_inputs()}
    return session.run(None, feed)


@pytest.mark.parametrize("form", ["float", "int8"])
def test_a_table_through_a_search_to_onnx(search, form):
    data = TABLE.drop(columns="joined")
    assert search.score(data, SUMMER) > 0.9
    pipeline = nb.quantize(search, data) if form == "int8" else search
    model = nb.pipeline_to_onnx(pipeline, X=data)
    labels, probabilities = outputs(model, data)
    np.testing.assert_array_equal(labels, pipeline.predict(data))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(data), atol=1e-3 if form == "float" else 0.03)
    assert ("QuantizeLinear" in {node.op_type for node in model.graph.node}) == (form == "int8")


def test_dates_are_refused_by_name(search):
    with pytest.raises(ValueError, match=r"column 'joined' .*datetime64.*ONNX has no dates: make numbers of it"):
        nb.pipeline_to_onnx(search, X=TABLE)


FUNCTIONS = {
    "formulas": lambda x: np.log2(x + 2.0) * np.square(x) - np.expm1(-x) / 3 + np.log10(1 + x) % 0.25,
    "rounded": lambda x: np.floor(x) + np.rint(x * 3) + np.ceil(-x) + x // 0.5,
    "columns": lambda x: np.hstack([x[:, [2, 0]], np.maximum(x[:, 1:2], 0.5), np.sqrt(x) * 2]),
    "one and several": lambda x: np.concatenate([x - x[:, :1], np.tanh(x) ** 2], axis=1),
    "bounds": lambda x: np.minimum(np.abs(x - 1), np.sign(x)) + np.reciprocal(1 + x),
}


@pytest.mark.parametrize("case", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions(case, dtype):
    x = np.random.default_rng(0).uniform(0.1, 3, (150, 3)).astype(dtype)
    transformer = FunctionTransformer(FUNCTIONS[case])
    expected = transformer.fit_transform(x)
    assert recorded(transformer, 3).width == expected.shape[1]
    mlp = MLPRegressor(hidden_layer_sizes=(5,), tol=1.0, random_state=0)
    pipeline = make_pipeline(transformer, StandardScaler(), mlp).fit(x, x[:, 0])
    model = nb.pipeline_to_onnx(pipeline, X=x)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    kind = np.float32 if session.get_inputs()[0].type == "tensor(float)" else np.float64
    found = session.run(None, {"input": x.astype(kind)})[0]
    np.testing.assert_allclose(found[:, 0], pipeline.predict(x), rtol=1e-3, atol=1e-4)


REFUSED = {
    "np.isnan": lambda x: np.isnan(x),
    "the columns' .mean": lambda x: x - x.mean(),
    "an array of shape \\(3,\\) beside": lambda x: x * np.arange(3.0),
    "a selection of one column by": lambda x: x[:, 0],
    "a selection by \\[slice": lambda x: x[:5],
    "np.sum": lambda x: np.sum(x, axis=1),
    "np.add with options": lambda x: np.add(x, 1, where=True),
    "Add of 2 and 3 columns": lambda x: x + x[:, :2],
    "along another axis than 1": lambda x: np.concatenate([x, x]),
    "returns a float": lambda x: 1.0,
    "cannot be recorded": lambda x: x + "text",
}


@pytest.mark.parametrize("words", REFUSED)
def test_functions_without_a_form_are_named(words):
    with pytest.raises(ValueError, match=rf"(?s)FunctionTransformer: .*{words}.*write it with NumPy"):
        recorded(FunctionTransformer(REFUSED[words]), 3)


def test_functions_of_text_are_refused():
    upper = make_pipeline(
        ColumnTransformer([("city", FunctionTransformer(lambda x: x), ["city"]), ("day", "passthrough", ["day"])]),
    )
    with pytest.raises(ValueError, match=r"FunctionTransformer: its columns hold text"):
        convert_sklearn(
            upper.fit(TABLE),
            initial_types=[("city", StringTensorType([None, 1])), ("day", DoubleTensorType([None, 1]))],
            custom_conversion_functions={FunctionTransformer: convert_function},
            custom_shape_calculators={FunctionTransformer: function_shapes},
        )
