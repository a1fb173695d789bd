"""The command `mdnc`: a table of verbs, each imported when it is called."""

import importlib
import os
import sys
from typing import NamedTuple

from mdnc._version import __version__


class Verb(NamedTuple):
    """One command."""

    entry: str  # 'module:function', called with the arguments behind the verb; gives the exit code
    help: str
    extra: str | None  # the extra of mdnc that it needs


VERBS = {
    'plan': Verb('mdnc.cli.plan:run', 'from data and a budget to a recipe that fits', 'train'),
    'fit': Verb('mdnc.cli.train:fit', 'train on a recipe, test, draw; or continue a run', 'train'),
    'validate': Verb('mdnc.cli.train:validate', 'figures of a checkpoint on the validation part', 'train'),
    'test': Verb('mdnc.cli.train:test', 'figures and pictures of a checkpoint on the test part', 'train'),
    'predict': Verb('mdnc.cli.train:predict', 'write the outputs of a checkpoint to a file', 'train'),
    'export': Verb('mdnc.cli.export:run', 'write a trained network as ONNX, torch.export or compiled', 'export'),
    'summary': Verb('mdnc.cli.summary:run', 'print the table of a network', None),
    'forecast': Verb('mdnc.cli.forecast:run', 'memory, cost and receptive field, before a run', None),
    'draw': Verb('mdnc.cli.draw:run', 'draw a picture of a network', 'analysis'),
    'diagnose': Verb('mdnc.cli.diagnose:run', 'say what may be wrong with a network on a batch', None),
}


class UsageError(Exception):
    """What was asked for makes no sense; the text is all that the user needs."""


def _help() -> str:
    rows = '\n'.join(
        f'  {name:<10} {verb.help}' + (f'  [{verb.extra}]' if verb.extra else '') for name, verb in VERBS.items()
    )
    return (
        f'mdnc {__version__}: residual networks for signals, images and volumes\n\n'
        f'usage: mdnc VERB [options]        mdnc VERB --help\n\n{rows}\n\n'
        "A verb marked [extra] needs: pip install 'mdnc[extra]'\n"
        '--traceback   after any verb: show where an error comes from'
    )


def _call(name: str, argv: list[str]) -> int:
    verb = VERBS[name]
    module, function = verb.entry.split(':')
    if not sys.flags.safe_path and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a recipe may name classes of the folder that it is called in
    try:
        entry = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if verb.extra is None or (error.name or '').startswith('mdnc'):
            raise
        raise UsageError(
            f"{error.name} is not installed, and this needs it; run: pip install 'mdnc[{verb.extra}]'"
        ) from error
    code: int = entry(argv)
    return code


def _answer(argv: list[str]) -> int:
    traceback = '--traceback' in argv
    name, *rest = [word for word in argv if word != '--traceback'] or ['--help']
    if name in ('-h', '--help', '--version'):
        print(__version__ if name == '--version' else _help())
        return 0
    if name not in VERBS:
        print(f'mdnc: error: there is no verb {name!r}; there are: {", ".join(VERBS)}', file=sys.stderr)
        return 2
    try:
        return _call(name, rest)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if traceback:
            raise
        # A worker's or a library's message may be long; all of it is shown, but not where it was raised.
        text = str(error) or type(error).__name__
        print(f'mdnc {name}: error: {text}', file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Verb and arguments; None takes those of the process.

    Returns:
        The exit code: 0; 1 for a run that failed; 2 for a wrong request; 130 and 143 after SIGINT and SIGTERM.
    """
    end = None
    try:
        code = _answer(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as error:  # argparse's, after --help
        code, end = 0, error
    except BrokenPipeError:
        return _write_nothing_more(141)
    code = _flushed(code)
    if end is not None and code == 0:
        raise end
    return code


def _flushed(code: int) -> int:
    # What waits to be written fails here, or Python says so at its end in words of its own.
    try:
        print(end='', flush=True)
    except BrokenPipeError:  # the reader went away, as in `mdnc summary … | head`
        return _write_nothing_more(141)
    except OSError as error:
        if code == 0:
            print(f'mdnc: error: the output cannot be written: {error.strerror}', file=sys.stderr)
        return _write_nothing_more(code or 1)
    return code


def _write_nothing_more(code: int) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
