"""Figures to trust before a run: memory, cost, receptive field, summary, picture and diagnosis of networks."""

from mdnc.analysis.budget import max_batch, max_size
from mdnc.analysis.memory import MemoryForecast, memory_forecast, saved_bytes
from mdnc.analysis.receptive_field import ReceptiveField, receptive_field

__all__ = [
    'MemoryForecast',
    'ReceptiveField',
    'max_batch',
    'max_size',
    'memory_forecast',
    'receptive_field',
    'saved_bytes',
]
