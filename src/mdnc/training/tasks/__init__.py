"""Tasks: what a network is trained for, with loss, metrics, targets and pictures."""

from mdnc.training.tasks.classification import Classification
from mdnc.training.tasks.multilabel import MultiLabel
from mdnc.training.tasks.quantity import DenseRegression, Reconstruction, Regression
from mdnc.training.tasks.segmentation import Segmentation
from mdnc.training.tasks.task import Task

__all__ = ['Classification', 'DenseRegression', 'MultiLabel', 'Reconstruction', 'Regression', 'Segmentation', 'Task']
