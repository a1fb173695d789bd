"""A public network on a command line: its name and the arguments of its constructor.

For a verb that takes a network::

    parser = network_parser('mdnc draw', 'Draw the stages of a network.', add_options)
    arguments = parser.parse_args(argv)
    with refusals():
        net = build(arguments)
        …

``mdnc draw EncoderNet2d --channel 64 … --out net.png`` then works, with help and one-line errors. Names, arguments
and defaults are read from ``mdnc.modules.resnet``.
"""

import ast
import contextlib
import difflib
import inspect
import json
import os
import re
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, cast

import torch
from torch import nn

from mdnc import checkpoints
from mdnc.cli import UsageError
from mdnc.modules import _checks, resnet

ARGUMENT = re.compile(r'^    (\w+): (.+(?:\n      .+)*)', re.MULTILINE)
WORDS_OF = re.compile(r'arguments as in `(\w+)`')
ORDER_WORDS = 'Number of spatial axes: 1 (signals), 2 (images) or 3 (volumes).'
MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
VALUES = "Values are numbers, words, lists as '[2,2,2]', and null."


def near(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest of the known words, or list all of them."""
    found = difflib.get_close_matches(word, known, n=1)
    return f'did you mean {found[0]}?' if found else f'choose from {", ".join(sorted(known))}'


class Parser(ArgumentParser):
    """A parser that raises one-line errors of the command."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation that works today may mean something else, or nothing, when an argument is added.
        super().__init__(allow_abbrev=False, formatter_class=RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise UsageError(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stderr).write(message)  # argparse's own ignores a closed pipe

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown network or option is reported first, with the nearest known one."""
        words = list(sys.argv[1:] if args is None else args)
        parser = self._parser_of(words)
        for word in words:
            option, known = word.partition('=')[0], parser._option_string_actions
            if option.startswith('--') and option != '--' and option not in known:
                self.error(f'unrecognized arguments: {option}: {near(option, known)}')
        return super().parse_args(words, namespace)

    def _parser_of(self, words: Sequence[str]) -> ArgumentParser:
        networks = next((action for action in self._actions if isinstance(action, _SubParsersAction)), None)
        if networks is None or not words or words[0].startswith('-'):
            return self
        name, known = words[0], networks.choices
        if name not in known:
            path = f'{name} is neither a file nor a network: ' if os.path.basename(name) != name or '.' in name else ''
            self.error(f'{path}argument NETWORK: invalid choice: {name!r}: {near(name, known)}')
        return cast(ArgumentParser, known[name])


@contextlib.contextmanager
def refusals(but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn an error about an argument, which names it and its legal values, into an error of the command.

    The same holds for missing or wrong files, and for packages that are not installed.

    Args:
        but: Errors that are raised as they are.
    """
    try:
        yield
    except but:
        raise
    except MISSING as error:
        told = error.filename is not None
        raise UsageError(f'{error.filename}: {error.strerror}' if told else str(error)) from error
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(str(error)) from error


def value(text: str) -> Any:
    """Read a JSON or Python literal; anything else is a string.

    Example:
        >>> [value(text) for text in ('64', '[2,2]', '(3, 1)', 'null', 'None', 'plain')]
        [64, [2, 2], (3, 1), None, None, 'plain']
    """
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return ast.literal_eval(text)
    return text


def network_parser(prog: str, description: str, add_options: Callable[[ArgumentParser], None]) -> Parser:
    """Parser of ``<prog> <network> --argument value … --option value …``.

    Args:
        prog: The command, for example ``'mdnc summary'``.
        description: What it does, for its help.
        add_options: Adds the command's own options to a parser; they follow the name of the network.

    Returns:
        The parser; the parsed ``network`` is the name, from which `build` makes the network.
    """
    parser = Parser(prog=prog, description=description, epilog=f'`{prog} NETWORK --help` lists its arguments. {VALUES}')
    networks = parser.add_subparsers(dest='network', metavar='NETWORK', required=True, title='networks')
    for name in resnet.__all__:
        make = getattr(resnet, name)
        sentence = _doc(make).partition('\n\n')[0]
        summary = sentence.partition(';')[0].rstrip('.')
        network = networks.add_parser(name, help=summary, description=f'{description}\n\n{sentence}', epilog=VALUES)
        add_options(network)
        _add_arguments(network, make)
    return parser


def build(arguments: Namespace) -> nn.Module:
    """Make the network that the parsed arguments name.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has the wrong value.
    """
    make = getattr(resnet, arguments.network)
    given = {name: getattr(arguments, name) for name in _parameters(make)}
    with _checks.buildable(arguments.network):
        network: nn.Module = make(**given)
    return network


def _add_arguments(parser: ArgumentParser, make: Callable[..., nn.Module]) -> None:
    group = parser.add_argument_group('arguments of the network')
    words = _words(make)
    for name, parameter in _parameters(make).items():
        required = parameter.default is inspect.Parameter.empty
        note = '(required)' if required else f'(default: {json.dumps(parameter.default)})'
        group.add_argument(
            f'--{name}',
            type=value,
            required=required,
            default=None if required else parameter.default,
            metavar='VALUE',
            help=f'{words.get(name, "")} {note}'.replace('%', '%%'),
        )


def _parameters(make: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    # Device and dtype are chosen by each command.
    known = inspect.signature(make).parameters
    return {name: parameter for name, parameter in known.items() if name not in ('device', 'dtype')}


def _words(make: Callable[..., nn.Module]) -> dict[str, str]:
    """What a docstring says about each argument; a preset refers to the class that documents them."""
    text = _doc(make)
    elsewhere = WORDS_OF.search(text)
    if elsewhere:
        return {'order': ORDER_WORDS} | _words(getattr(resnet, elsewhere[1]))
    section = text.partition('Args:\n')[2].partition('\n\n')[0]
    return {name: ' '.join(words.split()) for name, words in ARGUMENT.findall(section)}


def _doc(make: Callable[..., nn.Module]) -> str:
    return (inspect.getdoc(make) or '').replace('``', '')


def asked(
    prog: str, description: str, add_options: Callable[[ArgumentParser], None], argv: Sequence[str] | None, device: str
) -> tuple[nn.Module, Namespace]:
    """The network that is named on the command line, or read from a file, and the command's options.

    Args:
        prog: See `network_parser`.
        description: See `network_parser`.
        add_options: See `network_parser`.
        argv: What follows the verb: a network and its arguments, or what `mdnc.checkpoints.load` reads; options.
        device: Device on which a named network is made.
    """
    words = list(sys.argv[2:] if argv is None else argv)
    if words and words[0] not in resnet.__all__ and (os.path.exists(words[0]) or words[0].startswith('hf://')):
        reader = Parser(prog=prog, description=description)
        reader.add_argument('network', help='checkpoint or run folder of mdnc fit, folder of save_pretrained')
        add_options(reader)
        arguments = reader.parse_args(words)
        return checkpoints.load(arguments.network), arguments
    note = f'{description} NETWORK and its arguments may be replaced by a checkpoint or run folder of mdnc fit.'
    arguments = network_parser(prog, note, add_options).parse_args(words)
    with torch.device(device):
        return build(arguments), arguments
