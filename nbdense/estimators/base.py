"""The base of `MLPClassifier` and `MLPRegressor`: scikit-learn's conventions, and training by a Sequential.

Names, defaults and meanings are those of scikit-learn's `sklearn.neural_network`: the loss of a batch is the mean over
its rows plus alpha / 2 times the squared weights over the batch's size, a fit stops when the loss (or the held-out
score) has stopped improving, and initial weights are uniform as there (Glorot and Bengio 2010). Random numbers are
nbdense's own: equal seeds give other weights than scikit-learn's.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from nbdense import _checks
from nbdense._registry import name_of
from nbdense._warn import warn
from nbdense.estimators.epochs import train_in_epochs
from nbdense.estimators.lbfgs import minimise
from nbdense.estimators.networks import (
    NORMS,
    Architecture,
    dense_tensors,
    description,
    from_bytes,
    is_trained,
    new_model,
    set_penalty,
    to_bytes,
    units_of,
)
from nbdense.estimators.parameters import (
    OUT_ACTIVATION_NAMES,
    activation_of,
    checked_sizes,
    is_lbfgs,
    listed,
    per_layer,
)
from nbdense.estimators.rows import Floats, Rows, outputs_of
from nbdense.losses import Loss
from nbdense.models import Sequential
from nbdense.optimizers import SGD, Adam, Optimizer
from nbdense.optimizers import for_training as optimizer_of
from nbdense.training.sparse_rows import readable

try:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("nbdense.estimators needs scikit-learn, 1.6 or later: pip install 'nbdense[sklearn]'") from error

AUTO_BATCH = 200  # rows, of batch_size="auto"

_TAKEN: dict[str, Any] = {"dtype": "numeric", "accept_sparse": ("csr", "csc", "coo")}  # what X may be


class Objective(NamedTuple):
    """A loss that a network learns by, and the layer that it ends with.

    Attributes
    ----------
    loss : str, Loss or callable
        As `Sequential.compile` takes it.
    factor : float
        The factor that makes it scikit-learn's.
    activation : str
        The last layer's activation.
    units : int
        Its units.
    """

    loss: Any
    factor: float
    activation: str
    units: int


class BaseMLP(BaseEstimator):
    """A multilayer perceptron behind scikit-learn's interface; see its two subclasses.

    A subclass says what its targets are (`_encode`), what it minimises (`_objective`), how it judges held-out rows
    (`_held_out_score`), and has the parameters in its ``__init__``.
    """

    _y_numeric = False
    _in_parts: bool  # whether the last call was of partial_fit
    best_loss_: float | None

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Keep an ``__init__``'s arguments as they were given: scikit-learn looks them up under their names."""
        self.__dict__.update({name: value for name, value in parameters.items() if name not in ("self", "__class__")})

    def _encode(self, y: Any, fresh: bool) -> npt.NDArray[Any]:
        """Return checked targets: class numbers, labels or values; where ``fresh``, learn their classes."""
        raise NotImplementedError

    def _objective(self) -> Objective:
        """Return what is minimised."""
        raise NotImplementedError

    def _for_loss(self, targets: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return targets as the loss takes them."""
        return targets

    def _held_out_score(self, outputs: Floats, targets: npt.NDArray[Any], weights: Floats | None) -> float:
        """Return the score that early stopping looks at: larger is better."""
        raise NotImplementedError

    def _class_weights(self, targets: npt.NDArray[Any], weights: Floats | None, incremental: bool) -> Floats | None:
        """Return the factor of each row's weight for its class; None if all weigh alike."""
        return None

    def _check_parameters(self) -> list[int]:
        """Return the hidden layers' sizes, after raising for the first parameter that will not do."""
        return checked_sizes(self)

    def _check_going_on(self, targets: npt.NDArray[Any]) -> None:
        """Raise for targets that a fit which goes on cannot take."""

    # -- fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, eval_set: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or sparse, (rows, columns)
            Numbers, finite; sparse ones are made dense some batches at a time.
        y : array-like, (rows,) or (rows, outputs)
            A classifier's labels, or 0 and 1 for each label; a regressor's numbers, finite.
        sample_weight : array-like, (rows,), optional
            A weight for each row; one of weight 2 counts as two rows.
        eval_set : (X, y) or (X, y, sample_weight), optional
            Rows that each epoch is judged by, in ``validation_scores_``; with ``early_stopping`` in place of rows that
            are held out.
        """
        return self._fit(X, y, sample_weight, eval_set)

    def _fit(self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool = False) -> Self:
        """Do the work of ``fit``, and one epoch of it for ``partial_fit``."""
        hidden = self._check_parameters()
        if incremental and self.early_stopping and eval_set is None:
            raise ValueError(
                "partial_fit does not support early_stopping=True without an eval_set: it holds no rows out"
            )
        if eval_set is not None and is_lbfgs(self):
            raise ValueError("eval_set: solver='lbfgs' has no epochs to judge; use another solver, or leave it out")
        fresh = not hasattr(self, "model_") or not (self.warm_start or incremental)
        if fresh:
            self.__dict__.pop("model_", None)  # a fit that fails leaves nothing of the one before
        elif incremental and self.early_stopping and self._in_parts and self.converged_:
            return self
        rows = self._checked(X, y, sample_weight, fresh)
        if not fresh:
            self._check_going_on(rows.targets)
        by_class = self._class_weights(rows.targets, rows.weights, incremental)
        if by_class is not None:
            rows = rows._replace(weights=by_class if rows.weights is None else rows.weights * by_class)
        random = check_random_state(self.random_state)
        seed = int(random.randint(np.iinfo(np.int32).max))
        judged = None if eval_set is None else self._eval_rows(eval_set)
        if self.early_stopping and judged is None and not is_lbfgs(self):
            rows, judged = self._hold_out(rows, random)
        model = self._new_model(rows.X, hidden, seed) if fresh else self._known_model(hidden)
        self._begin_records(fresh, judged is not None)
        if fresh or not (incremental and self._in_parts):
            self._no_improvement_count = 0
        self._train(model, rows, judged, incremental, fresh)
        self._in_parts = incremental
        return self

    def _checked(self, X: Any, y: Any, sample_weight: Any, fresh: bool) -> Rows:
        """Return rows after scikit-learn's checks; where ``fresh``, learn their columns and classes."""
        for name, value in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            _checks.refuse_masked(name, value)
        X, y = validate_data(self, X, y, reset=fresh, multi_output=True, y_numeric=self._y_numeric, **_TAKEN)
        targets = self._encode(y, fresh)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        return Rows(readable("X", X), targets, weights)

    def _eval_rows(self, eval_set: Any) -> Rows:
        """Return the rows of an ``eval_set``, which may be the only one of a list."""
        parts = eval_set[0] if isinstance(eval_set, list) and len(eval_set) == 1 else eval_set
        if not isinstance(parts, tuple | list) or len(parts) not in (2, 3):
            raise ValueError(f"eval_set: expected (X, y) or (X, y, sample_weight), got {type(eval_set).__name__}")
        try:
            X, y, weights = (*parts, None)[:3]
            rows = self._checked(X, y, weights, fresh=False)
        except ValueError as error:
            raise ValueError(f"eval_set: {error}") from error
        if rows.weights is not None and not rows.weights.any():
            raise ValueError("eval_set: its weights are all zero: there is nothing to judge by")
        return rows

    def _begin_records(self, fresh: bool, judged: bool) -> None:
        """Begin the records of losses and scores anew where a fit does, or where it is judged in another way."""
        if fresh:
            self.loss_curve_: list[float] = []
            self.t_ = 0
        stops = self.early_stopping and judged
        if fresh or (self.validation_scores_ is not None, self.best_loss_ is None) != (judged, stops):
            self.best_loss_ = None if stops else math.inf
            self.validation_scores_: list[float] | None = [] if judged else None
            self.best_validation_score_ = -math.inf if judged else None
            self._best_state = None

    def _train(self, model: Sequential, rows: Rows, judged: Rows | None, incremental: bool, fresh: bool) -> None:
        loss, factor, _, _ = self._objective()
        batch = rows.n_rows if is_lbfgs(self) else self._batch_size(rows.n_rows)
        of_row = 1.0 if rows.weights is None else float(rows.weights.mean())
        if not of_row > 0.0:
            raise ValueError("sample_weight: the weights do not sum to more than zero: there is nothing to learn")
        set_penalty(model, 0.5 * self.alpha / (batch * of_row))  # a row of weight 2 counts as two rows
        if fresh or not incremental:
            model.compile(self._optimizer(), loss)
        weights = rows.weights
        if weights is not None or factor != 1.0:
            weights = np.full(rows.n_rows, factor) if weights is None else weights * (factor / of_row)
        rows = Rows(rows.X, self._for_loss(rows.targets), weights)
        complaint = ""
        try:
            if is_lbfgs(self):
                complaint = minimise(self, model, rows)
            else:
                complaint = train_in_epochs(self, model, rows, judged, batch, incremental)
        except KeyboardInterrupt:
            warn("Training interrupted by user.")
        self.model_ = model
        if complaint:
            warn(complaint, ConvergenceWarning)

    def learn_one(self, x: Any, y: Any) -> Self:
        """Take one step on one row as it comes in, without scikit-learn's checks; `partial_fit` comes first.

        Counted are ``t_`` and ``loss_``, the row's loss; ``loss_curve_`` does not grow.

        Parameters
        ----------
        x : array-like, (columns,)
            Numbers.
        y : label or number
            Its label or value; for several, an array of them.
        """
        check_is_fitted(self, "model_")
        _, factor, _, _ = self._objective()
        model = self._learning_model()
        if model.network.segments[0]["l2"] != 0.5 * self.alpha:
            set_penalty(model, 0.5 * self.alpha)
        self.loss_ = model.learn_one(x, self._encode_one(y), None if factor == 1.0 else factor)
        self.t_ += 1
        return self

    def predict_one(self, x: Any) -> Any:
        """Predict the label or value of one row, without scikit-learn's checks.

        Parameters
        ----------
        x : array-like, (columns,)
            Numbers.
        """
        check_is_fitted(self, "model_")
        return self._answers(self.model_.predict_one(x)[np.newaxis])[0]

    def _encode_one(self, y: Any) -> Any:
        """Return the target of one row as `Sequential.fit` takes it."""
        return y

    def _answers(self, outputs: Floats) -> npt.NDArray[Any]:
        """Return what is predicted by outputs of the network."""
        raise NotImplementedError

    def _batch_size(self, rows: int) -> int:
        if isinstance(self.batch_size, str):
            return min(AUTO_BATCH, rows)
        if self.batch_size > rows:
            warn(f"batch_size={self.batch_size} is more than the {rows} rows there are; it is clipped to these")
        return min(int(self.batch_size), rows)

    def _hold_out(self, rows: Rows, random: np.random.RandomState) -> tuple[Rows, Rows]:
        """Return rows to learn from, and those held out of them."""
        arrays = [part for part in rows if part is not None]
        share = self.validation_fraction
        stratify = rows.targets if rows.targets.ndim == 1 else None  # by the rows' classes
        parts = train_test_split(*arrays, random_state=random, test_size=share, stratify=stratify)
        learnt, held_out = Rows(*parts[::2]), Rows(*parts[1::2])
        if held_out.n_rows < 2 or (held_out.weights is not None and not held_out.weights.any()):
            raise ValueError(
                f"The validation set is too small: validation_fraction={share} of {rows.n_rows} rows holds out too few "
                "to judge by; raise it, or give more rows, or an eval_set"
            )
        return learnt, held_out

    # -- the network --------------------------------------------------------------------------------------------

    def _architecture(self, hidden: list[int]) -> Architecture:
        """Return what the layers are made of."""
        _, _, out_activation, units = self._objective()
        functions = [activation_of(value) for value in per_layer(self, "activation", len(hidden))]
        last = functions or [activation_of(value) for value in listed(self.activation)[-1:]]
        return Architecture(
            hidden=hidden,
            activations=functions,
            dropout=[float(share) for share in per_layer(self, "dropout", len(hidden))],
            norm=next((name for name in NORMS if getattr(self, name)), ""),
            residual=bool(self.residual),
            outputs=units,
            out_activation=out_activation,
            last_hidden=last[-1] if last else None,
        )

    def _new_model(self, X: Any, hidden: list[int], seed: int) -> Sequential:
        dtype = self.dtype
        if dtype == "auto":
            dtype = "float32" if X.dtype == np.float32 else "float64"
        return new_model(type(self).__name__, self._architecture(hidden).layers(X.shape[1]), dtype, seed)

    def _learning_model(self) -> Sequential:
        """Return the model, which must be one that learns."""
        if not is_trained(self.model_):
            raise TypeError(
                f"{type(self).__name__}: its model is a {type(self.model_).__name__}, which does not learn; train the "
                "estimator that it was made of, and make it anew"
            )
        model: Sequential = self.model_
        return model

    def _known_model(self, hidden: list[int]) -> Sequential:
        """Return the model to go on with; a ValueError if the parameters are those of another."""
        model = self._learning_model()
        wanted = description(self._architecture(hidden).layers(model.network.n_in))
        if description(model.layers) != wanted or self.dtype not in ("auto", str(model.dtype)):
            raise ValueError(
                f"{type(self).__name__}: hidden_layer_sizes, activation, dropout, {', '.join(NORMS)}, residual, dtype "
                "and the number of outputs must stay as they are while the fit goes on (warm_start, partial_fit); "
                f"fitted was a network with hidden layers of {units_of(model)} in {model.dtype}"
            )
        return model

    def _optimizer(self) -> Optimizer:
        solver, rate = self.solver, self.learning_rate_init
        if isinstance(solver, Optimizer):
            return solver.fresh()
        if is_lbfgs(self):
            return SGD()  # whose steps are never taken
        if solver == "sgd":
            return SGD(rate, self.momentum, self.nesterovs_momentum)
        if solver == "adam":
            return Adam(rate, self.beta_1, self.beta_2, self.epsilon)
        return optimizer_of({"class_name": solver, "config": {"learning_rate": rate}})

    def targets_for_model(self, y: Any) -> npt.NDArray[Any]:
        """Return targets as `nbdense.Sequential.fit` of ``model_`` takes them.

        Parameters
        ----------
        y : array-like
            Labels or values, as for `fit`.
        """
        check_is_fitted(self, "model_")
        return self._for_loss(self._encode(np.asarray(y), fresh=False))

    def with_model(self, model: Any) -> Self:
        """Return an estimator that predicts by another model: a quantized or pruned one of this estimator's.

        Parameters
        ----------
        model : Sequential, QuantizedModel or another with ``predict``
            Of as many columns and outputs. Only a Sequential can be trained further.
        """
        check_is_fitted(self, "model_")
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, model_=model)
        if is_trained(model) and units_of(model) != listed(self.hidden_layer_sizes):
            twin.hidden_layer_sizes = tuple(units_of(model))  # neurons have been pruned
        return twin

    def to_onnx(self, path: Any = None, **options: Any) -> Any:
        """Write the fitted estimator as an ONNX file with its labels: `nbdense.to_onnx`, which takes Pipelines too.

        Parameters
        ----------
        path : path, optional
            File to write; None writes none.
        **options
            Those of `nbdense.export.pipeline_to_onnx`.

        Returns
        -------
        onnx.ModelProto
        """
        # By name: the exporter is built upon the estimators, and loaded by those who ask for it.
        return importlib.import_module("nbdense.export").pipeline_to_onnx(self, path, **options)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- what has been fitted -----------------------------------------------------------------------------------

    def _features(self, X: Any) -> Any:
        """Return rows to predict, after scikit-learn's checks."""
        check_is_fitted(self, "model_")
        _checks.refuse_masked("X", X)
        return readable("X", validate_data(self, X, reset=False, **_TAKEN))

    def _outputs(self, X: Any) -> Floats:
        """Return the outputs of the network, (rows, units)."""
        features = self._features(X)
        return outputs_of(self.model_, features)

    @property
    def coefs_(self) -> list[Floats]:
        """Copies of the weight matrices, (n_in, units) each, layer by layer."""
        check_is_fitted(self, "model_")
        return dense_tensors(self.model_, "kernel")

    @property
    def intercepts_(self) -> list[Floats]:
        """Copies of the bias vectors, (units,) each, layer by layer."""
        check_is_fitted(self, "model_")
        return dense_tensors(self.model_, "bias")

    @property
    def n_layers_(self) -> int:
        """Layers, the input and the output counted."""
        check_is_fitted(self, "model_")
        return len(listed(self.hidden_layer_sizes)) + 2

    @property
    def n_outputs_(self) -> int:
        """Units of the output layer."""
        check_is_fitted(self, "model_")
        return self._objective().units

    @property
    def out_activation_(self) -> str:
        """The output layer's activation, in scikit-learn's words."""
        check_is_fitted(self, "model_")
        name = self._objective().activation
        return OUT_ACTIVATION_NAMES.get(name, name)

    # -- copies in files ----------------------------------------------------------------------------------------

    def _own_objects(self) -> dict[str, Any]:
        """Return the user's own losses, activations, optimizers and schedules, by the names that files have."""
        own: dict[str, Any] = {}
        loss = self._objective().loss
        if isinstance(loss, Loss):
            own |= {type(loss).__name__: type(loss), loss.name: loss}
        elif callable(loss):
            own[name_of(loss)] = loss
        schedule = self.learning_rate_init
        if isinstance(self.solver, Optimizer):
            own[type(self.solver).name] = type(self.solver)
            schedule = self.solver.schedule
        own[type(schedule).__name__] = type(schedule)
        return own | {value.name: value for value in listed(self.activation) if getattr(value, "own", False)}

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = to_bytes(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            self.model_ = from_bytes(state["model_"], self._own_objects())
