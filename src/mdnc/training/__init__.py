"""Training with Lightning: tasks, data, and runs that can be interrupted and repeated."""

import importlib
from typing import TYPE_CHECKING, Any

from mdnc._extras import named
from mdnc.training.data import *  # noqa: F403
from mdnc.training.data import __all__ as _data
from mdnc.training.fitting import train
from mdnc.training.nonfinite_loss import Guard
from mdnc.training.optimized import Optimized
from mdnc.training.predictor import Predictor, load
from mdnc.training.run import make_trainer
from mdnc.training.sampler import make_loader
from mdnc.training.sanity_check import Sanity
from mdnc.training.saving import Keeper
from mdnc.training.seed import Repeatable
from mdnc.training.tasks import *  # noqa: F403
from mdnc.training.tasks import __all__ as _tasks

if TYPE_CHECKING:
    from mdnc.training.estimators import NetClassifier as NetClassifier
    from mdnc.training.estimators import NetRegressor as NetRegressor

__all__ = [
    'Guard',
    'Keeper',
    'Optimized',
    'Predictor',
    'Repeatable',
    'Sanity',
    'load',
    'make_loader',
    'make_trainer',
    'train',
    *_data,
    *_tasks,
]

_ESTIMATORS = ('NetClassifier', 'NetRegressor')  # they need scikit-learn, which training does not


def __getattr__(name: str) -> Any:
    if name in _ESTIMATORS:
        with named('sklearn'):
            return getattr(importlib.import_module('mdnc.training.estimators'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
