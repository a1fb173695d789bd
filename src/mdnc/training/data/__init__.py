"""Data of any order, from files or memory, split, normalised and augmented."""

from mdnc.training.augmentation import Augmentation
from mdnc.training.data.builtin import MNI152, Digits, Mosaics, Photographs, TimeSeries
from mdnc.training.data.datamodule import ArrayData, SampleData
from mdnc.training.data.grid import Grid
from mdnc.training.data.reader import DataError, Reader
from mdnc.training.data.split import Split

__all__ = [
    'MNI152',
    'ArrayData',
    'Augmentation',
    'DataError',
    'Digits',
    'Grid',
    'Mosaics',
    'Photographs',
    'Reader',
    'SampleData',
    'Split',
    'TimeSeries',
]
