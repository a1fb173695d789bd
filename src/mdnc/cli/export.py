"""``mdnc export``: a trained network as a file for other programs."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdnc import checkpoints, export
from mdnc.cli.networks import Parser, refusals, value
from mdnc.export import Compared, Exported
from mdnc.export.contract import given_shape

SCALES = ('normalisation', 'target_normalisation')
FORMATS = {'onnx': export.to_onnx, 'torch': export.to_torch_export, 'aoti': export.to_aotinductor}


def run(argv: Sequence[str] | None = None) -> int:
    """Export what the arguments ask for and print what was compared.

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
        parser.error(f'--opset is of --format onnx, not {arguments.format}')
    with refusals(but=export.DiffersError):
        net = checkpoints.load(arguments.source)
        for size in arguments.check or ():
            given_shape(net, size)  # what is refused later must not leave a file
        options: dict[str, Any] = {} if arguments.opset is None else {'opset': arguments.opset}
        if arguments.normalise:
            options |= _scales(net.origin.data if net.origin else None, arguments)
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
    parser.add_argument('--normalise', action='store_true', help="make the scales of the run's data part of the graph")
    parser.add_argument('--opset', type=int, help="version of ONNX's operators (default: the exporter's)")
    parser.add_argument(
        '--check',
        nargs='*',
        type=value,
        metavar='SIZE',
        help='read the written file and compare it with the network, at these sizes too, as in --check 64,63 33,20',
    )
    return parser


def _scales(data: dict[str, Any] | None, arguments: Namespace) -> dict[str, Any]:
    scales = {name: data[name] for name in SCALES if data and data.get(name)}
    if not scales:
        raise ValueError(f'--normalise: {arguments.source} holds no normalisation')
    return scales


def _report(made: Exported, rows: Sequence[Compared]) -> str:
    lines = [
        f'file     {made.path}, {made.path.stat().st_size / 2**20:.1f} MiB',
        f'network  {made.facts["network"]["name"]}, input {made.facts["input"]}',
        f'sizes    {made.facts["sizes"]}',
        *(f'scales   {name} is part of the graph' for name in SCALES if made.facts[name]),
        'compared with the network, differences relative to the largest output value:',
    ]
    for row in rows:
        verdict = 'agrees' if row.agrees else 'DIFFERS'
        lines.append(f'  {row.shape!s:<24} {row.difference:.1e} of {row.allowed:.1e} allowed: {verdict}')
    return '\n'.join(lines)
