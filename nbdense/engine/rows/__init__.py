"""Work of each row of the layer table, forward, backward and in the update: a module for each kind of row."""

from nbdense.engine.rows.activation import ACTIVATION as ACTIVATION
from nbdense.engine.rows.activity import ACTIVITY as ACTIVITY
from nbdense.engine.rows.add import ADD as ADD
from nbdense.engine.rows.batch_norm import BATCH_NORM as BATCH_NORM
from nbdense.engine.rows.batch_norm import FROZEN_NORM as FROZEN_NORM
from nbdense.engine.rows.dense import DENSE as DENSE
from nbdense.engine.rows.dropout import DROPOUT as DROPOUT
from nbdense.engine.rows.fake_quant import FAKE_QUANT as FAKE_QUANT
from nbdense.engine.rows.kind import ROW_KINDS as ROW_KINDS
from nbdense.engine.rows.kind import RowKind as RowKind
from nbdense.engine.rows.kind import kind_of as kind_of
from nbdense.engine.rows.kind import rows_of as rows_of
from nbdense.engine.rows.layer_norm import LAYER_NORM as LAYER_NORM
from nbdense.engine.rows.reshape import RESHAPE as RESHAPE
from nbdense.engine.rows.rms_norm import RMS_NORM as RMS_NORM
