"""Folders as people have them."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from mdnc.training import ArrayData, Split

ALL = Split(val=0, test=0)


def picture(path, value=0, size=(8, 8)):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def array(path, value=0.0, shape=(1, 8)):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full(shape, value, np.float32))


def text(path, *lines, end='\n', encoding='utf-8'):
    Path(path).write_bytes((end.join(lines) + end).encode(encoding))


def opened(*where, **options):
    data = ArrayData(*where, split=options.pop('split', ALL), **options)
    data.setup()
    return data


def names(samples):
    return [samples.name(number) for number in range(len(samples))]


def values(samples):
    """First value of each input, with the target where there is one (the first value of a map)."""
    items = [samples.item(number, None) for number in range(len(samples))]
    inputs = [float(item['input'].flat[0]) for item in items]
    return [
        (value, float(item['target'].flat[0])) if 'target' in item else value
        for value, item in zip(inputs, items, strict=True)
    ]


def link(target, path):
    os.symlink(target, path)
