"""``mdnc export``: a trained network as a file for other programs."""

from argparse import BooleanOptionalAction, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdnc import checkpoints, export
from mdnc.checkpoints import Answer
from mdnc.cli.networks import Parser, refusals, value
from mdnc.export import Compared, Exported
from mdnc.export.contract import given_shape

SCALES = ('normalisation', 'target_normalisation')
FORMATS = {'onnx': export.to_onnx, 'torch': export.to_torch_export, 'aoti': export.to_aotinductor}


def run(argv: Sequence[str] | None = None) -> int:
    """Export the requested network and print how the file compares with it.

    Args:
        argv: What follows ``mdnc export`` on the command line.

    Returns:
        The exit status: 0, or 1 if the graph or the written file differs from the network.

    Raises:
        UsageError: An argument was refused.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.opset is not None and arguments.format != 'onnx':
        parser.error(f'--opset needs --format onnx, not {arguments.format}')
    with refusals(but=export.DiffersError):
        net = checkpoints.load(arguments.source, allow=arguments.allow)
        for size in arguments.check or ():
            given_shape(net, size)  # refused before a file is written
        options: dict[str, Any] = {} if arguments.opset is None else {'opset': arguments.opset}
        data = net.origin.data or {}
        if arguments.normalise is not False and data.get('answer'):
            net = Answer(net)
        elif arguments.normalise:
            options |= _scales(data, arguments)
        options |= {name: True for name in ('mirror', 'last_step') if getattr(arguments, f'with_{name}')}
        made = FORMATS[arguments.format](net, arguments.output, **options)
        rows = made.compared
        if arguments.check is not None:
            rows += export.check(made.path, net, arguments.check or None)
    print(_report(made, rows))
    return 0 if all(row.agrees for row in rows) else 1


def _parser() -> Parser:
    parser = Parser(prog='mdnc export', description='Write a trained network as one file for other programs.')
    parser.add_argument(
        'source', help='checkpoint or run folder of mdnc fit, folder of save_pretrained, hf://owner/name'
    )
    parser.add_argument('--format', choices=FORMATS, default='onnx', help='kind of file (default: onnx)')
    parser.add_argument('--output', type=Path, required=True, help='the file: .onnx, or .pt2 for torch and aoti')
    parser.add_argument(
        '--normalise',
        action=BooleanOptionalAction,
        help="input and output of the graph are in the units of the data, as with mdnc predict (default for what "
        "mdnc fit wrote); "
        '--no-normalise: the network alone, in standard units and logits',
    )
    parser.add_argument(
        '--with-mirror', action='store_true', help='the graph averages over mirror images as mdnc predict does (mirror)'
    )
    parser.add_argument(
        '--with-last-step',
        action='store_true',
        help='the graph of a network that predicts in tiles makes probabilities or classes of a tile; without, scores, '
        'which are what tiles are blended by',
    )
    parser.add_argument('--opset', type=int, help="version of ONNX's operators (default: the exporter's)")
    parser.add_argument(
        '--allow',
        nargs='+',
        default=[],
        metavar='CLASS',
        help='full names of network classes outside mdnc that may be imported (this runs their code)',
    )
    parser.add_argument(
        '--check',
        nargs='*',
        type=value,
        metavar='SIZE',
        help='read the written file and compare it with the network, at these sizes too, as in --check 64,63 33,20',
    )
    return parser


def _scales(data: dict[str, Any], arguments: Namespace) -> dict[str, Any]:
    scales = {name: data[name] for name in SCALES if data.get(name)}
    if not scales:
        raise ValueError(f'--normalise: {arguments.source} holds no normalisation')
    return scales


def _report(made: Exported, rows: Sequence[Compared]) -> str:
    facts = made.facts
    lines = [
        f'file     {made.path}, {made.path.stat().st_size / 2**20:.1f} MiB',
        f'network  {facts["network"]["name"]}, input {facts["input"]}',
        f'sizes    {facts["sizes"]}',
        *(f'scales   {name} is part of the graph' for name in SCALES if facts[name]),
        f'gives    {facts["gives"]}',
        *([f'tiles    {facts["tiles"]}'] if facts['tiles'] else []),
        *([f'mirror   scores are averaged over mirror images along {facts["mirror"]}'] if facts['mirror'] else []),
        'compared with the network, differences relative to the largest output value:',
    ]
    for row in rows:
        verdict = 'agrees' if row.agrees else 'DIFFERS'
        lines.append(f'  {row.shape!s:<24} {row.difference:.1e} of {row.allowed:.1e} allowed: {verdict}')
    return '\n'.join(lines)
