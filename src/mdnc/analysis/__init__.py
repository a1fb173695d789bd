"""Estimates before training: memory, cost, receptive field, summary, picture and diagnosis of networks."""

from mdnc.analysis.budget import fitting_level, max_batch, max_size
from mdnc.analysis.cost import Cost, Device, Floors, cost, measured_device
from mdnc.analysis.description import Comparison, Description, compare, describe
from mdnc.analysis.diagnosis import Diagnosis, Thresholds, diagnose
from mdnc.analysis.memory import MemoryForecast, memory_forecast, saved_bytes
from mdnc.analysis.picture import draw, figure
from mdnc.analysis.prediction import PredictionForecast, prediction_forecast
from mdnc.analysis.receptive_field import ReceptiveField, receptive_field

__all__ = [
    'Comparison',
    'Cost',
    'Description',
    'Device',
    'Diagnosis',
    'Floors',
    'MemoryForecast',
    'PredictionForecast',
    'ReceptiveField',
    'Thresholds',
    'compare',
    'cost',
    'describe',
    'diagnose',
    'draw',
    'figure',
    'fitting_level',
    'max_batch',
    'max_size',
    'measured_device',
    'memory_forecast',
    'prediction_forecast',
    'receptive_field',
    'saved_bytes',
]
