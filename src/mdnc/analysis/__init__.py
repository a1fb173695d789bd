"""Figures to trust before a run: memory, cost, receptive field, summary, picture and diagnosis of networks."""

from mdnc.analysis.budget import max_batch, max_size
from mdnc.analysis.memory import MemoryForecast, memory_forecast, saved_bytes

__all__ = ['MemoryForecast', 'max_batch', 'max_size', 'memory_forecast', 'saved_bytes']
