"""The schedules under the name that they have in Keras: `nbdense.schedules` has them."""

from nbdense.schedules import SCHEDULES as SCHEDULES
from nbdense.schedules import CosineDecay as CosineDecay
from nbdense.schedules import CosineDecayRestarts as CosineDecayRestarts
from nbdense.schedules import ExponentialDecay as ExponentialDecay
from nbdense.schedules import InverseTimeDecay as InverseTimeDecay
from nbdense.schedules import LearningRateSchedule as LearningRateSchedule
from nbdense.schedules import OneCycle as OneCycle
from nbdense.schedules import PiecewiseConstantDecay as PiecewiseConstantDecay
from nbdense.schedules import PolynomialDecay as PolynomialDecay
from nbdense.schedules import StepDecay as StepDecay
from nbdense.schedules import deserialize as deserialize
from nbdense.schedules import get as get
from nbdense.schedules import serialize as serialize
