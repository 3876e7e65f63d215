"""scikit-learn's own tests of its MLPs, from the installed package, with nbdense's estimators in their place.

    python -m tests.estimators.scikit_learns_tests          # with the defaults
    python -m tests.estimators.scikit_learns_tests auto     # in the data's dtype, as scikit-learn

Those in DIFFERENT fail, each for its reason, and with the defaults those in OF_FLOAT32; the script returns 1 if another
does, or one of them passes. docs/from_sklearn.md has the list.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

TESTS = "sklearn.neural_network.tests.test_mlp"

DIFFERENT = {
    "test_fit": "sets fitted attributes: weights are set by `model_.set_weights`",
    "test_gradient": "calls a private function, `_loss_grad_lbfgs`",
    "test_learning_rate_warmstart": "reads a private attribute, `_optimizer`: `model_.optimizer` has the rate",
    "test_adaptive_learning_rate": "reads a private attribute, `_optimizer`: `model_.optimizer` has the rate",
    "test_nonfinite_params": "wording: columns too large for float32 are named, and so is a loss that is not finite",
    "test_early_stopping_stratified": "wording: the class that has one row only is called 1, not True",
}
OF_FLOAT32 = {  # these pass with dtype="auto"
    "test_mlp_param_dtypes[MLPClassifier-float64]": "weights are float32 by default",
    "test_mlp_param_dtypes[MLPRegressor-float64]": "weights are float32 by default",
}


class Outcomes:
    """A plugin that keeps what became of each test, by its name without parameters."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: dict[str, str] = {}
        self.count = 0

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep a test's outcome."""
        if report.when == "call" or report.failed:
            self.count += 1
            name = report.nodeid.split("::")[-1]
            if report.failed:
                self.failed[name] = str(report.longrepr).strip().splitlines()[-1]
            else:
                self.passed.add(name)


def run(dtype: str = "float32", *options: str) -> Outcomes:
    """Run the tests; return what became of them.

    Parameters
    ----------
    dtype : str
        The estimators' default in this run.
    *options : str
        Options of pytest's.
    """
    import sklearn.neural_network

    from nbdense.estimators import MLPClassifier, MLPRegressor

    for estimator in (MLPClassifier, MLPRegressor):
        estimator.__init__.__kwdefaults__["dtype"] = dtype
        setattr(sklearn.neural_network, estimator.__name__, estimator)
    sys.modules.pop(TESTS, None)
    outcomes = Outcomes()
    settings = ["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "/", "--pyargs", TESTS, *options]
    pytest.main(settings, plugins=[outcomes])
    return outcomes


def main(arguments: list[str]) -> int:
    """Run the tests; return 1 if others fail than are listed, or fewer.

    Parameters
    ----------
    arguments : list of str
        The estimators' default dtype in this run, float32 if there is none, and options of pytest's.
    """
    outcomes = run(*arguments)
    listed = set(DIFFERENT) | (set() if arguments[:1] == ["auto"] else set(OF_FLOAT32))
    others, mended = sorted(set(outcomes.failed) - listed), sorted(listed - set(outcomes.failed))
    for name in others:
        print(f"not listed: {name}: {outcomes.failed[name]}")
    print(
        f"{len(outcomes.passed)} of {outcomes.count} pass; not listed: {others or 'none'}; mended: {mended or 'none'}"
    )
    return int(bool(others or mended))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
