"""By how much a process grows with its samples, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

_BEGIN = """
import json, resource, sys
import numpy as np, torch
from torch import nn
from mdnc.training import ArrayData, Segmentation, make_trainer
from mdnc.training.prediction import PredictionWriter
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
"""
_END = """
torch.set_num_threads(1)
run((64, 64, 64), 'small')
before = peak()
run((256, 256, 320), 'large')
print(json.dumps(peak() - before))
"""


def growth(run: str, folder: Path) -> float:
    """Bytes by which ``run(size, name)``, a function as text, makes a process grow with a volume of 84 MB.

    Args:
        run: Its definition. ``sys.argv[1]`` is the folder.
        folder: Where its files go.
    """
    command = [sys.executable, '-c', _BEGIN + run + _END, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))
