"""``mdnc summary``: the table of a network's layers."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdnc.cli.networks import build, network_parser, refusals, value
from mdnc.contribs.torchsummary import summary
from mdnc.contribs.torchsummary.request import usable_device
from mdnc.modules import _checks

DESCRIPTION = "Print the table of a network's layers, with their output shapes and parameters."


def run(argv: Sequence[str] | None = None) -> int:
    """Print the requested table.

    Args:
        argv: What follows ``mdnc summary`` on the command line.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: An argument was refused.
    """
    parser = network_parser('mdnc summary', DESCRIPTION, _add_options)
    arguments = parser.parse_args(argv)
    with refusals():
        device = usable_device(arguments.device)
        with device:
            net = build(arguments)
        dtypes = _dtypes(arguments.dtypes)
        if dtypes and dtypes[0] in _checks.DTYPES:
            net = net.to(dtypes[0])
        input_size = arguments.input_size
        if input_size is None:
            input_size = getattr(net, 'input_size', None)
        if input_size is None:
            raise ValueError(
                f"{arguments.network}: --input_size is needed, channels first, as in --input_size '[3,64,63]'"
            )
        if arguments.rich or arguments.json or arguments.against is not None:
            _describe(net, input_size, arguments)
        else:
            summary(net, input_size, arguments.batch_size, device, dtypes)
    return 0


def _describe(net: nn.Module, input_size: Any, arguments: Namespace) -> None:
    """Print the detailed tree, alone or compared with one that was written before."""
    from mdnc.analysis import compare, describe  # imported here: the plain table does not need it

    batch = 1 if arguments.batch_size == -1 else arguments.batch_size
    dtype = (_dtypes(arguments.dtypes) or [None])[0]
    tree = describe(net, input_size, batch, dtype, depth=arguments.depth, columns=arguments.columns.split(','))
    if arguments.against is not None:
        print(compare(_before(Path(arguments.against)), tree))
    else:
        print(json.dumps(tree.to_dict(), indent=1) if arguments.json else tree)


def _before(path: Path) -> Any:
    from mdnc.analysis import Description

    try:
        return Description.from_dict(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'--against {path}: it is no description written by --json ({error})') from error


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--input_size',
        type=value,
        metavar='VALUE',
        help="Size of the input without the batch, as in '[3,64,63]' (default for a decoder: the size it takes)",
    )
    parser.add_argument(
        '--batch_size',
        type=value,
        default=-1,
        metavar='VALUE',
        help='Size of the batch, or -1 to leave it open (default: -1)',
    )
    parser.add_argument(
        '--device',
        default='meta',
        help='Where the network is built and run; on meta nothing is computed or allocated (default: meta)',
    )
    parser.add_argument(
        '--dtypes',
        type=value,
        metavar='VALUE',
        help='Type of the network and its input, as in bfloat16 (default: float32)',
    )
    rich = parser.add_argument_group('a detailed tree (with batch size 1 if --batch_size is not given)')
    rich.add_argument('--rich', action='store_true', help='Print the tree in place of the table')
    rich.add_argument('--json', action='store_true', help='Print the tree as JSON')
    rich.add_argument('--against', metavar='FILE', help='Compare the tree with one that --json has written')
    rich.add_argument('--depth', type=value, default=2, metavar='VALUE', help='Depth of the tree (default: 2)')
    rich.add_argument(
        '--columns',
        default='input,output,kernel,parameters,macs,kept',
        metavar='NAMES',
        help='Columns of the tree, in any order (default: %(default)s)',
    )


def _dtypes(words: Any) -> Any:
    """A dtype for each word; other words are refused by the summary itself."""
    if words is None:
        return None
    return [getattr(torch, str(word), word) for word in (words if isinstance(words, list) else [words])]
