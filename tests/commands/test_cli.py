"""The ``nbdense`` command: its arguments and exit codes. What `nbdense demo` does is in test_demo.py."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import nbdense
from nbdense.commands import cli, demo


@pytest.fixture
def demo_called(monkeypatch):
    """The demo replaced by a note of how it was called."""
    calls = []

    def run(folder, **options):
        calls.append((folder, options))
        return calls

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
        (["demo", "--seed", "-1"], "--seed: must be at least 0, got -1"),
        (["demo", "--seed", "one"], "--seed: invalid whole number value: 'one'"),
        (["demo", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
        (["demo", "somewhere"], "unrecognized arguments: somewhere"),
        (["dance"], "invalid choice: 'dance'"),
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


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"nbdense {nbdense.__version__}\n"


def test_the_command_is_installed():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="nbdense")
    assert script.load() is cli.main


def test_help_loads_no_engine():
    code = (
        "import sys; from nbdense.commands.cli import main; main([]); "
        "print(sorted({'numba', 'onnx', 'sklearn'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"
