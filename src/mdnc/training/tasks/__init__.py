"""What a network is trained for: tasks differ in loss, metrics, target and picture."""

from mdnc.training.tasks.classification import Classification
from mdnc.training.tasks.task import Task

__all__ = ['Classification', 'Task']
