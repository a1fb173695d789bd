"""Training on arrays: tasks, data and runs that survive and repeat, on Lightning."""

from mdnc.training.data import *  # noqa: F403
from mdnc.training.data import __all__ as _data
from mdnc.training.guard import Guard
from mdnc.training.keeper import Keeper
from mdnc.training.onecall import train
from mdnc.training.optimized import Optimized
from mdnc.training.predictor import Predictor, load
from mdnc.training.run import make_trainer
from mdnc.training.sampler import make_loader
from mdnc.training.sanity import Sanity
from mdnc.training.seed import Repeatable
from mdnc.training.tasks import *  # noqa: F403
from mdnc.training.tasks import __all__ as _tasks

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
