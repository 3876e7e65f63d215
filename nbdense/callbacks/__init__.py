"""Objects that `fit` calls between epochs and batches."""

from nbdense.callbacks.averages import SwapEMAWeights as SwapEMAWeights
from nbdense.callbacks.backup import BackupAndRestore as BackupAndRestore
from nbdense.callbacks.reporting import Callback as Callback
from nbdense.callbacks.reporting import CSVLogger as CSVLogger
from nbdense.callbacks.reporting import EarlyStopping as EarlyStopping
from nbdense.callbacks.reporting import History as History
from nbdense.callbacks.reporting import LambdaCallback as LambdaCallback
from nbdense.callbacks.reporting import LearningRateScheduler as LearningRateScheduler
from nbdense.callbacks.reporting import Logs as Logs
from nbdense.callbacks.reporting import ModelCheckpoint as ModelCheckpoint
from nbdense.callbacks.reporting import ProgbarLogger as ProgbarLogger
from nbdense.callbacks.reporting import ProgressBar as ProgressBar
from nbdense.callbacks.reporting import ReduceLROnPlateau as ReduceLROnPlateau
from nbdense.callbacks.reporting import TensorBoard as TensorBoard
from nbdense.callbacks.reporting import TerminateOnNaN as TerminateOnNaN
