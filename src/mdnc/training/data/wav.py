"""WAV recordings, read as far as they are asked for."""

import warnings
from typing import Any

import numpy as np

from mdnc._extras import require
from mdnc.training.data.grid import Grid
from mdnc.training.data.reader import Array, DataError


class Wave:
    """A recording ``(C, L)``, from −1 to 1 where it is stored in whole numbers; its spacing is in seconds.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        wavfile = require('scipy.io.wavfile', 'data')
        with warnings.catch_warnings():
            # Chunks that other programs add are passed over; what is cut short is an error.
            warnings.filterwarnings('ignore', category=wavfile.WavFileWarning, message='Chunk')
            warnings.filterwarnings('error', category=wavfile.WavFileWarning)
            try:
                rate, self._values = wavfile.read(path, mmap=True)
            except ValueError:  # values of three bytes cannot be mapped
                rate, self._values = wavfile.read(path)
        if not rate or not self._values.size:
            raise DataError('it holds no sound')
        self.nbytes = 0 if isinstance(self._values, np.memmap) else self._values.nbytes
        values = self._values[:, None] if self._values.ndim == 1 else self._values
        self._channels = values.T
        self.shape = tuple(self._channels.shape)
        self.grid = Grid((self.shape[1],), (1 / rate,))

    def __getitem__(self, place: Any) -> Array:
        values = np.asarray(self._channels[place])
        if values.dtype.kind == 'f':
            return values
        half = 2.0 ** (8 * values.dtype.itemsize - 1)
        found: Array = (values / half - (values.dtype.kind == 'u')).astype(np.float32)
        return found
