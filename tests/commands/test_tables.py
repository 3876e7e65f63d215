"""Tables of data: what is read, what columns are taken for, and what is said where a cell does not fit."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from nbdense.commands.errors import CommandError
from nbdense.commands.tables.cells import features_of, target_of
from nbdense.commands.tables.finding import find_schema
from nbdense.commands.tables.reading import read_matrix, read_table
from nbdense.commands.tables.schema import Column, Schema, Wishes, column_of


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_one_table_in_every_format(tmp_path):
    table = pd.DataFrame({"a": [1.5, np.nan, 3.0], "b": [4.0, 5.0, 6.0]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "t.txt", index=False, sep=";")
    table.to_parquet(tmp_path / "t.parquet")
    np.save(tmp_path / "s.npy", table.to_records(index=False))
    for name in ("t.csv", "t.tsv", "t.parquet", "s.npy"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name), table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.txt", ";"), table)
    np.save(tmp_path / "t.npy", table.to_numpy())
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.npy"), table.set_axis(["0", "1"], axis=1))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "line 3 has 3 cells where 2 were expected"),
        ("t.csv", b"a,b\n1,2,3\n1,2,3\n", "rows have more cells than the header's 2"),
        ("t.csv", b'a,b\n1,"2\n3,4\n', "a quote that is opened in row 2 is never closed"),
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"a,b\n", "t.csv has no rows"),
        ("t.csv", b"a,a\n1,2\n", "two columns are called 'a'"),
        ("t.csv", b"a,b\n1,\xe9\n", "is not UTF-8"),
        ("t.csv", b"a\0,b\n1,2\n", "is no text"),
        ("t.npy", b"a,b\n1,2\n", "is no proper .npy file"),
        ("t.parquet", b"a,b\n1,2\n", "is no proper Parquet file"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CommandError, match=message):
        read_table(tmp_path / name)


def test_rows_for_a_network(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(6.0).reshape(2, 3))
    (tmp_path / "t.csv").write_text("a,b,c\n0,1,2\n3,4,5\n")
    for name in ("t.npy", "t.csv"):
        rows = read_matrix(tmp_path / name)
        assert rows.dtype == np.float32 and rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    (tmp_path / "t.csv").write_text("a,b\n0,x\n")
    with pytest.raises(CommandError, match="a network reads rows of numbers alone"):
        read_matrix(tmp_path / "t.csv")


def test_no_file(tmp_path):
    with pytest.raises(CommandError, match=r"no data file at .*t\.csv$"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(CommandError, match="it is a folder"):
        read_table(tmp_path)


def test_a_pickle_in_npy_is_not_run(tmp_path):
    np.save(tmp_path / "t.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(CommandError, match=r"is no proper \.npy file of numbers"):
        read_table(tmp_path / "t.npy")


CELLS = {
    "whole": [1, 2, 3, 4],
    "gappy": [1.5, None, 2.5, 4.0],
    "word": ["x", None, "y", "x"],
    "truth": [True, False, True, True],
    "gappy_truth": ["true", None, "false", "true"],
    "day": ["2026-11-27", "1970-01-02", None, "1969-12-31"],
    "moment": ["2026-11-27 23:59:00", "2026-11-27T00:00:00Z", "2026-11-26", None],
    "nearly_day": ["2026-11-27", "soon", "2026-11-27", "2026-11-27"],
    "empty": [None, None, None, None],
    "same": [7, 7, 7, 7],
    "y": ["a", "b", "a", "b"],
}


@pytest.fixture
def table(tmp_path):
    pd.DataFrame(CELLS).to_csv(tmp_path / "t.csv", index=False)
    return read_table(tmp_path / "t.csv")


def test_kinds_are_found(table):
    schema = find_schema(table, "y", Wishes({}))
    assert {column.name: column.kind for column in schema.columns} == {
        "whole": "number",
        "gappy": "number",
        "word": "text",
        "truth": "boolean",
        "gappy_truth": "boolean",
        "day": "date",
        "moment": "date",
        "nearly_day": "text",
    }
    assert schema.left_out == {"empty": "empty", "same": "the same in every row"}
    assert (schema.target, schema.task, schema.labels) == ("y", "classification", "text")
    assert Schema.from_config(schema.to_config()) == schema


def test_cells_as_the_pipeline_takes_them(table):
    features = features_of(table, find_schema(table, "y", Wishes({})), "t")
    day = (dt.date(2026, 11, 27) - dt.date(1970, 1, 1)).days
    expected = {
        "whole": [1, 2, 3, 4],
        "gappy": [1.5, np.nan, 2.5, 4],
        "truth": [1, 0, 1, 1],
        "gappy_truth": [1, np.nan, 0, 1],
        "day": [day, 1, np.nan, -1],
        "moment": [day, day, day - 1, np.nan],
    }
    for name, cells in expected.items():
        np.testing.assert_array_equal(features[name].to_numpy(), np.array(cells, np.float64))
    assert features["word"].tolist() == ["x", "", "y", "x"]


def test_the_user_says_what_a_column_is(tmp_path):
    path = write(tmp_path / "t.csv", "zip,born,y\n007,27.11.2026,1\n012,28.11.2026,0\n")
    kinds = [column_of("zip=text"), column_of("born=date:%d.%m.%Y")]
    table = read_table(path, text=["zip"])
    schema = find_schema(table, "y", Wishes({column.name: column for column in kinds}))
    features = features_of(table, schema, "t")
    assert features["zip"].tolist() == ["007", "012"]
    assert features["born"].tolist() == [20784.0, 20785.0]


@pytest.mark.parametrize("text", ["zip", "zip=float", "=text", "zip=text:%d"])
def test_words_on_a_column_that_say_nothing(text):
    with pytest.raises(ValueError, match="expected NAME=KIND"):
        column_of(text)


@pytest.mark.parametrize(
    ("cells", "task", "labels"),
    [
        ([0, 1, 1, 0], "classification", "number"),
        ([1.0, 2.0, 1.0, 2.0], "classification", "number"),
        ([1.5, 2.0, 1.0, 2.0], "regression", "number"),
        (range(40), "regression", "number"),
        ([True, False, True, False], "classification", "boolean"),
        (["a", "b", "a", "b"], "classification", "text"),
    ],
)
def test_the_task_is_found(cells, task, labels):
    table = pd.DataFrame({"x": np.arange(len(cells)) % 3, "y": list(cells)})
    schema = find_schema(table, "y", Wishes({}))
    assert (schema.task, schema.labels) == (task, labels)


def test_targets():
    table = pd.DataFrame({"x": [1, 2, 3], "y": [True, False, None]})
    values, there = target_of(table, find_schema(table, "y", Wishes({})), "t")
    assert values.tolist() == ["True", "False"] and there.tolist() == [True, True, False]
    table = pd.DataFrame({"x": [1, 2, 3], "y": [3.0, 1.0, np.nan]})
    values, _ = target_of(table, find_schema(table, "y", Wishes({})), "t")
    assert values.dtype == np.int64 and values.tolist() == [3, 1]
    with pytest.raises(CommandError, match="has fractions"):
        target_of(table.assign(y=[0.5, 1.0, 2.0]), find_schema(table, "y", Wishes({})), "t")


@pytest.mark.parametrize(
    ("target", "wishes", "message"),
    [
        ("z", Wishes({}), "there is no column 'z' \\(--target\\); there are: x, y"),
        ("y", Wishes({}, drop=("z",)), "there is no column 'z'"),
        ("y", Wishes({}, drop=("x",)), "there is no column to learn from: x \\(dropped\\)"),
        ("y", Wishes({"z": Column("z", "text")}), "there is no column 'z'"),
        ("x", Wishes({}, task="regression"), "the target 'x' is text: regression predicts numbers"),
    ],
)
def test_wishes_that_do_not_fit(target, wishes, message):
    table = pd.DataFrame({"x": ["a", "b", "a"], "y": [1, 2, 3]})
    with pytest.raises(CommandError, match=message):
        find_schema(table, target, wishes)


SCHEMA = Schema(
    (Column("n", "number"), Column("t", "text"), Column("d", "date"), Column("b", "boolean")),
    {"id": "dropped"},
    "y",
    "regression",
    "number",
)
ROW = {"n": [1.0, 2.0], "t": ["a", "b"], "d": ["2026-11-27", "2026-11-28"], "b": [True, False]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": ["1", "many"]}, "column 'n' is of numbers, but row 2 holds 'many'"),
        ({"n": [True, False]}, "column 'n' is of numbers, but row 1 holds"),
        ({"n": [1.0, np.inf]}, "column 'n' holds infinity in row 2"),
        ({"d": ["2026-11-27", "27/11/2026"]}, "column 'd' is of dates, but row 2 holds '27/11/2026'"),
        ({"d": [1.0, 2.0]}, "column 'd' is of dates, but row 1 holds 1.0"),
        ({"b": ["true", "maybe"]}, "column 'b' is of booleans, but row 2 holds 'maybe'"),
        ({"b": [0, 2]}, "column 'b' is of booleans, but row 2 holds 2"),
        ({"z": [1, 2]}, "t has a column 'z' that the model does not know; --drop leaves it out"),
    ],
)
def test_cells_of_another_kind(change, message):
    with pytest.raises(CommandError, match=message):
        features_of(pd.DataFrame({**ROW, **change}), SCHEMA, "t")


def test_columns_at_predict_time():
    extra = pd.DataFrame({"y": [1, 2], "id": ["x", "y"], **dict(reversed(ROW.items()))})
    assert list(features_of(extra, SCHEMA, "t").columns) == ["n", "t", "d", "b"]
    with pytest.raises(CommandError, match="t lacks the column 'n', which the model reads"):
        features_of(pd.DataFrame(ROW).drop(columns="n"), SCHEMA, "t")


@pytest.mark.parametrize(
    "change",
    [{"format": "other"}, {"format_version": 9}, {"columns": [{"name": "n"}]}, {"task": "dance"}, {"left_out": 3}],
)
def test_damaged_descriptions(change):
    with pytest.raises(ValueError, match="^it"):
        Schema.from_config({**SCHEMA.to_config(), **change})
