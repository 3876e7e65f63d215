"""A callback that lets an interrupted fit go on where it was."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbdense.callbacks.base import Callback, Logs, whole
from nbdense.files import FileFormatError, TensorFile, write_tensors

_KIND = "state of a fit"


class BackupAndRestore(Callback):
    """A callback that keeps the state of a fit in a file: the same call of fit, after an interruption, goes on from it.

    The state is weights, the optimizer's slots, steps and learning rate, and the seed that orders of rows and dropout
    depend on: behind whole epochs, what goes on gets the same bits as what was never interrupted. A fit that was
    interrupted within an epoch begins that epoch again, with the weights of the last backup, as in Keras. The file is
    replaced as a whole or not at all.

    Parameters
    ----------
    backup_dir : str or path
        A folder for this fit alone; made if it is missing.
    save_freq : "epoch" or int
        Back up after each epoch, or after so many batches; each step is taken by itself then.
    double_checkpoint : bool
        Whether the backup before the last is kept too, for disks that lose what was written.
    delete_checkpoint : bool
        Whether the backup is deleted when the fit has ended.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from nbdense import Dense, Sequential
    >>> from nbdense.callbacks import BackupAndRestore
    >>> model = Sequential([Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     backup = BackupAndRestore(folder, delete_checkpoint=False)
    ...     first = model.fit(np.ones((8, 2)), np.ones(8), epochs=2, callbacks=[backup], verbose=0)
    ...     rest = model.fit(np.ones((8, 2)), np.ones(8), epochs=5, callbacks=[backup], verbose=0)
    >>> rest.epoch
    [2, 3, 4]
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        if not backup_dir:
            raise ValueError(f"BackupAndRestore: backup_dir must be the path of a folder, got {backup_dir!r}")
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq if save_freq == "epoch" else whole(self, "save_freq", save_freq, 1)
        self.double_checkpoint, self.delete_checkpoint = bool(double_checkpoint), bool(delete_checkpoint)
        self._path = Path(self.backup_dir, "latest.safetensors")
        self._older = Path(self.backup_dir, "previous.safetensors")
        self._epoch = self._batches = 0

    def wants_batches(self) -> bool:
        return self.save_freq != "epoch"

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.initial_epoch, self._batches = None, 0
        file = self._newest()
        if file is not None:
            self._restore(file)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if isinstance(self.save_freq, int):
            self._batches += 1
            if self._batches % self.save_freq == 0:
                self._save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch + 1
        if self.save_freq == "epoch":
            self._save()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint:
            self._path.unlink(missing_ok=True)
            self._older.unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's files are in it, or it was never made
                Path(self.backup_dir).rmdir()

    def _newest(self) -> TensorFile | None:
        """Return the last backup that can be read; None where there is none."""
        try:
            return TensorFile(self._path)
        except FileNotFoundError:
            return TensorFile(self._older) if self._older.is_file() else None
        except FileFormatError:
            if self._older.is_file():
                return TensorFile(self._older)
            raise

    def _tensors(self) -> dict[str, Any]:
        """Return views of all that a backup holds, by name."""
        network, vectors = self.model.network, self.model.train_state.vectors
        tensors = {f"weights/{name}": view for name, view in network.tensors().items()}
        for slot, vector in enumerate(vectors[1:], 1):
            tensors |= {f"slot{slot}/{name}": view for name, view in network.tensors(vector).items()}
        return tensors

    def _save(self) -> None:
        state = self.model.train_state
        optimizer, _ = state.compiled()
        config: dict[str, Any] = {
            "epoch": self._epoch,
            "batches": optimizer.batches,
            "learning_rate": None if optimizer.schedule is not None else float(optimizer.learning_rate),
            "seed": state.seed,
            "epochs_trained": state.epochs_trained,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self.double_checkpoint and self._path.is_file():
            self._path.replace(self._older)
        write_tensors(self._path, _KIND, config, self._tensors())

    def _restore(self, file: TensorFile) -> None:
        state, tensors = self.model.train_state, self._tensors()
        optimizer, _ = state.compiled()
        shapes = {name: view.shape for name, view in tensors.items()}
        if file.kind != _KIND or file.shapes != shapes:
            raise ValueError(
                f"BackupAndRestore: {file.path} is no backup of this model with this optimizer; give each fit a "
                "backup_dir of its own, or delete this one to begin anew"
            )
        for name, view in tensors.items():
            view[...] = file.read(name, view.shape)
        self.model.network.version += 1
        optimizer.batches = int(file.config["batches"])
        if file.config["learning_rate"] is not None and optimizer.schedule is None:
            optimizer.learning_rate = float(file.config["learning_rate"])
        state.seed, state.epochs_trained = int(file.config["seed"]), int(file.config["epochs_trained"])
        self._epoch = self.initial_epoch = int(file.config["epoch"])
