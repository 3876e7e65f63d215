"""The ``nbdense`` command: its arguments and exit codes. What `nbdense demo` does is in test_demo.py."""

import dataclasses
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nbdense
from nbdense.commands import cli, demo, interface


@pytest.fixture
def demo_called(monkeypatch):
    """The demo replaced by a note of how it was called."""
    calls = []
    results = dataclasses.make_dataclass("Results", [])

    def run(folder, **options):
        calls.append((folder, options))
        return results()

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(demo, "report", lambda results: "the table")
    return calls


def test_demo_by_default(demo_called, capsys):
    assert cli.main(["demo"]) == 0
    assert demo_called == [(Path("nbdense-demo"), {"seed": 0, "epochs": demo.EPOCHS})]
    assert capsys.readouterr().out == "the table\n"


def test_demo_options(demo_called):
    assert cli.main(["demo", "--out", "here", "--seed", "7", "--epochs", "3"]) == 0
    assert demo_called == [(Path("here"), {"seed": 7, "epochs": 3})]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--seed", "-1"], "'--seed': must be at least 0, got -1"),
        (["demo", "--seed", "one"], "'--seed': 'one' is not a whole number"),
        (["demo", "--epochs", "0"], "'--epochs': must be at least 1, got 0"),
        (["demo", "somewhere"], "unexpected extra argument (somewhere)"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_wrong_arguments(demo_called, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert not demo_called


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (demo.DemoError("needs tea"), 1, "nbdense demo: needs tea\n"),
        (OSError(28, "No space left on device"), 1, "nbdense demo: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "nbdense: interrupted\n"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, message):
    def run(*arguments, **options):
        raise error

    monkeypatch.setattr(demo, "run", run)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err == message


def test_no_command_prints_the_commands(capsys):
    assert cli.main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_the_registry_names_the_modules_that_there_are():
    folder = Path(interface.__file__).parent
    assert set(cli.COMMANDS) == {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_examples_that_the_command_takes_and_exit_codes(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--json" in text
    examples, codes = text.partition("Examples:")[2].split("Exit codes:")
    assert {0, 1, 2, 130} <= {int(line.split()[0]) for line in codes.splitlines() if line.strip()}
    lines = [shlex.split(line) for line in examples.splitlines() if line.strip()]
    assert lines
    for program, command, *arguments in lines:
        assert (program, command) == ("nbdense", name)
        cli.nbdense.get_command(None, name).make_context(name, arguments)


def test_several_dtypes_behind_one_option():
    context = cli.nbdense.get_command(None, "warmup").make_context("warmup", ["--dtype", "float32", "float64"])
    assert (context.params["dtype"], context.params["dtypes"]) == (("float32",), ("float64",))


def test_json_is_all_that_stdout_gets(monkeypatch, capsys):
    @dataclasses.dataclass
    class Results:
        folder: Path
        seconds: float

    monkeypatch.setattr(demo, "run", lambda folder, **options: Results(folder, 1.5))
    monkeypatch.setattr(demo, "report", lambda results: "the table")
    assert cli.main(["demo", "--out", "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": "here", "seconds": 1.5}


def test_completion_comes_with_the_library():
    environment = {**os.environ, "_NBDENSE_COMPLETE": "bash_complete", "COMP_WORDS": "nbdense dem", "COMP_CWORD": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "nbdense"], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout == "plain,demo\n"


def test_python_m_nbdense():
    process = subprocess.run([sys.executable, "-m", "nbdense", "dance"], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("Usage: nbdense ")


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nbdense {nbdense.__version__}\n"


def test_the_command_is_installed():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="nbdense")
    assert script.load() is cli.main


def test_help_loads_no_engine():
    code = (
        "import sys; from nbdense.commands.cli import main; main([]); "
        "print(sorted({'numba', 'numpy', 'onnx', 'sklearn'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"
