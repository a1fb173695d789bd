"""What a test says of a network: figures with intervals, of all, of each class or quantity, and of each sample."""

from mdnc.training.evaluation.classification import evaluate_classes, evaluate_labels
from mdnc.training.evaluation.intervals import Figure, known
from mdnc.training.evaluation.regression import error_sums, evaluate_errors
from mdnc.training.evaluation.result import COUNTS, Evaluation, write_samples
from mdnc.training.evaluation.sample_results import SampleResults, Table, Worst
from mdnc.training.evaluation.segmentation import dice, evaluate_overlaps
from mdnc.training.evaluation.trivial import no_better

__all__ = [
    'COUNTS',
    'Evaluation',
    'Figure',
    'SampleResults',
    'Table',
    'Worst',
    'dice',
    'error_sums',
    'evaluate_classes',
    'evaluate_errors',
    'evaluate_labels',
    'evaluate_overlaps',
    'known',
    'no_better',
    'write_samples',
]
