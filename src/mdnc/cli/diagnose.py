"""``mdnc diagnose``: possible problems of a network on a batch."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mdnc import analysis
from mdnc._archive import load_archive
from mdnc._extras import require
from mdnc.analysis.fake_run import trial
from mdnc.cli.networks import asked, refusals, value

DESCRIPTION = 'Run a network on a batch and report possible problems; the network is not changed.'


def run(argv: Sequence[str] | None = None) -> int:
    """Print the requested diagnosis.

    Args:
        argv: What follows ``mdnc diagnose`` on the command line.

    Returns:
        The exit status: 0, or 1 if there are findings.

    Raises:
        UsageError: An argument was refused.
    """
    with refusals():
        net, arguments = asked('mdnc diagnose', DESCRIPTION, _add_options, argv, device='cpu')
        diagnosis = analysis.diagnose(net, _batch(net, arguments))
    print(json.dumps(diagnosis.to_dict(), indent=1) if arguments.json else diagnosis)
    return 1 if diagnosis.findings else 0


def _add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add('--batch', metavar='FILE', help='A batch of inputs as the network takes them: .npy, or .pt with one tensor')
    add(
        '--input_size',
        type=value,
        metavar='VALUE',
        help="Size of the input, as in '[64,63]'; without --batch, 8 samples of noise are run",
    )
    add('--json', action='store_true', help='Print JSON')


def _batch(net: nn.Module, arguments: Namespace) -> Tensor:
    if arguments.batch is None:
        size = arguments.input_size if arguments.input_size is not None else getattr(net, 'input_size', None)
        if size is None:
            raise ValueError(f'{arguments.network}: --batch or --input_size is needed')
        return torch.randn(trial('diagnose', net, size, 8).shape, generator=torch.Generator().manual_seed(0))
    path = Path(arguments.batch)
    if path.suffix == '.pt':
        batch: Tensor = load_archive(path)
        return batch
    if path.suffix != '.npy':
        raise ValueError(f'--batch {path}: it must be .npy, or .pt with one tensor')
    return _array(path)


def _array(path: Path) -> Tensor:
    numpy = require('numpy', 'data')
    try:
        array = numpy.load(path, mmap_mode='r', allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f'--batch {path}: it holds no array of numbers ({error})') from error
    if getattr(array, 'dtype', numpy.dtype(object)).kind not in 'fiub':
        raise ValueError(f'--batch {path}: it must hold one array of real numbers')
    return torch.from_numpy(numpy.array(array, dtype='float32'))
