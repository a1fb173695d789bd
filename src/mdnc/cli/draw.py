"""``mdnc draw``: a picture of a network."""

from argparse import ArgumentParser
from collections.abc import Sequence

from mdnc import analysis
from mdnc.cli.networks import asked, refusals, value

DESCRIPTION = 'Draw the parts of a network with their sizes and channels, shortcuts and skips.'


def run(argv: Sequence[str] | None = None) -> int:
    """Draw the requested network and print the name of the file.

    Args:
        argv: What follows ``mdnc draw`` on the command line.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: An argument was refused.
    """
    with refusals():
        net, arguments = asked('mdnc draw', DESCRIPTION, _add_options, argv, device='meta')
        print(analysis.draw(net, arguments.output, arguments.input_size))
    return 0


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument('--output', required=True, metavar='FILE', help='The picture: .svg, .png or .pdf')
    parser.add_argument(
        '--input_size',
        type=value,
        metavar='VALUE',
        help="Size of the input, as in '[64,63]' (default: sizes relative to it)",
    )
