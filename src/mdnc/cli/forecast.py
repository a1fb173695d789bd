"""``mdnc forecast``: memory, cost and receptive field of a network, estimated without running it."""

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from mdnc import analysis
from mdnc.analysis.memory import OPTIMIZERS
from mdnc.analysis.table import bytes_text
from mdnc.cli.networks import asked, refusals, value

DESCRIPTION = 'Estimate what training a network needs, without computing or allocating anything.'
AMOUNT = re.compile(r'((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[0-9]+)?) *([kmgtp]?)(i?)b?', re.IGNORECASE)
MOST = 2**60  # bytes, an exbibyte
OPTIMIZER_HELP = f'{", ".join(OPTIMIZERS)} (default: adamw)'


def run(argv: Sequence[str] | None = None) -> int:
    """Print the requested estimates.

    Args:
        argv: What follows ``mdnc forecast`` on the command line.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: An argument was refused.
    """
    with refusals():
        net, arguments = asked('mdnc forecast', DESCRIPTION, _add_options, argv, device='meta')
        size = arguments.input_size if arguments.input_size is not None else getattr(net, 'input_size', None)
        if size is None:
            raise ValueError(f"{arguments.network}: --input_size is needed, as in --input_size '[64,63]'")
        figures = dict(_figures(net, size, arguments))
    if arguments.json:
        plain = {name: made if isinstance(made, str) else made.to_dict() for name, made in figures.items()}
        print(json.dumps(plain, indent=1))
    else:
        print('\n\n'.join(map(str, figures.values())))
    return 0


def bytes_of(text: str) -> int:
    """Read a number of bytes: ``80GB`` by thousands, ``80GiB`` by 1024, or a number alone.

    Example:
        >>> bytes_of('1.5 KiB'), bytes_of('2MB'), bytes_of('300')
        (1536, 2000000, 300)
    """
    match = AMOUNT.fullmatch(text.strip())
    amount = 0.0
    if match is not None:
        number, prefix, binary = match.groups()
        amount = float(number) * (1024 if binary else 1000) ** ' kmgtp'.index(prefix.lower() or ' ')
    if not 1 <= amount < MOST:
        raise ValueError(f'budget={text[:40]!r} must be a number of bytes, as in 80GB, 24GiB or 1000000.')
    return int(amount)


def _add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add('--input_size', type=value, metavar='VALUE', help="Size of the input, as in '[64,63]' or '[3,64,63]'")
    add('--batch_size', type=value, default=1, metavar='VALUE', help='Size of the batch (default: 1)')
    add('--dtype', metavar='WORD', help='Type of parameters and input, as in bfloat16 (default: float32)')
    add('--optimizer', default='adamw', metavar='WORD', help=OPTIMIZER_HELP)
    add(
        '--budget',
        metavar='BYTES',
        help='Print the largest batch, size and memory level within this, as in 80GB or 24GiB',
    )
    add('--cost', action='store_true', help='Also count multiply-adds and bytes moved by a training step')
    add(
        '--measure',
        action='store_true',
        help='Measure this machine for a second, and print the shortest possible time of a step',
    )
    add('--field', action='store_true', help='Also print the receptive field of each stage')
    add('--json', action='store_true', help='Print JSON')


def _figures(net: nn.Module, size: Any, arguments: Namespace) -> Iterator[tuple[str, Any]]:
    batch, dtype, optimizer = arguments.batch_size, _dtype(arguments.dtype), arguments.optimizer
    yield 'memory', analysis.memory_forecast(net, size, batch, dtype, optimizer)
    if arguments.budget is not None:
        yield 'fits', '\n'.join(_fits(net, size, arguments))
    if arguments.cost or arguments.measure:
        cost = analysis.cost(net, size, batch, dtype, training=True)
        yield 'cost', cost
        if arguments.measure:
            yield 'floors', str(cost.floors(analysis.measured_device(dtype=dtype or torch.float32)))
    if arguments.field:
        yield 'field', analysis.receptive_field(net)


def _fits(net: nn.Module, size: Any, arguments: Namespace) -> Iterator[str]:
    """Sentences on what fits into a budget, or the reason why nothing does."""
    budget, batch = bytes_of(arguments.budget), arguments.batch_size
    how = (budget, _dtype(arguments.dtype), arguments.optimizer)
    yield f'Within {bytes_text(budget)}:'
    yield f'  largest batch of this size: {_answer(lambda: analysis.max_batch(net, size, *how))}'
    yield f'  largest size in this batch: {_answer(lambda: analysis.max_size(net, batch, *how))}'
    yield f'  memory level for both: {_answer(lambda: analysis.fitting_level(net, size, batch, *how))}'


def _answer(question: Callable[[], Any]) -> str:
    try:
        return str(question())
    except (ValueError, TypeError) as reason:  # nothing fits, or a decoder, which has one size
        return f'none; {reason}'


def _dtype(word: str | None) -> Any:
    # A word that is no dtype is refused by the forecast itself.
    return None if word is None else getattr(torch, word, word)
