"""Networks from files and state dicts: loaded by name, rebuilt from shapes, or filled as far as they fit."""

from mdnc._archive import DamagedFileError
from mdnc.checkpoints.loading import load
from mdnc.checkpoints.rebuilding import rebuild
from mdnc.checkpoints.transfer import LoadReport, LoadRow, load_into
from mdnc.modules._ensemble import Ensemble
from mdnc.modules._inference import Answer

__all__ = ['Answer', 'DamagedFileError', 'Ensemble', 'LoadReport', 'LoadRow', 'load', 'load_into', 'rebuild']
