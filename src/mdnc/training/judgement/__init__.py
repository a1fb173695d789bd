"""What a test says of a network: figures with intervals, of all, of each class or quantity, and of each sample."""

from mdnc.training.judgement.classes import judge_classes, judge_labels
from mdnc.training.judgement.errors import error_sums, judge_errors
from mdnc.training.judgement.evidence import Evidence, Table, Worst
from mdnc.training.judgement.intervals import Figure, known
from mdnc.training.judgement.overlaps import dice, judge_overlaps
from mdnc.training.judgement.verdict import COUNTS, Judgement, write_samples

__all__ = [
    'COUNTS',
    'Evidence',
    'Figure',
    'Judgement',
    'Table',
    'Worst',
    'dice',
    'error_sums',
    'judge_classes',
    'judge_errors',
    'judge_labels',
    'judge_overlaps',
    'known',
    'write_samples',
]
