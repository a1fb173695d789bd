"""The command `mdnc`: a table of verbs, each imported when it is called."""

import importlib
import os
import sys
from typing import NamedTuple

from mdnc._version import __version__


class Verb(NamedTuple):
    """One command."""

    entry: str  # 'module:function', called with the arguments after the verb; returns the exit code
    help: str
    extra: str | None  # the extra of mdnc that it needs


VERBS = {
    'plan': Verb(
        'mdnc.cli.plan:run', 'choose a network and settings for data and a memory budget, and write a recipe', 'train'
    ),
    'fit': Verb('mdnc.cli.train:fit', 'train from a recipe, then test and write a report; or continue a run', 'train'),
    'validate': Verb('mdnc.cli.train:validate', 'compute the metrics of a checkpoint on the validation data', 'train'),
    'test': Verb(
        'mdnc.cli.train:test', 'compute metrics, pictures and a report of a checkpoint on the test data', 'train'
    ),
    'predict': Verb(
        'mdnc.cli.train:predict', 'apply a checkpoint to samples and write its predictions to files', 'train'
    ),
    'export': Verb('mdnc.cli.export:run', 'write a trained network as ONNX, torch.export or AOTInductor', 'export'),
    'summary': Verb('mdnc.cli.summary:run', 'print the layers of a network as a table', None),
    'forecast': Verb(
        'mdnc.cli.forecast:run', 'estimate memory, cost and receptive field without running a network', None
    ),
    'draw': Verb('mdnc.cli.draw:run', 'draw a network as a picture', 'analysis'),
    'diagnose': Verb('mdnc.cli.diagnose:run', 'run a network on a batch and report possible problems', None),
}


class UsageError(Exception):
    """A request that cannot be carried out; the message tells the user all that is needed, without a traceback."""


def _help() -> str:
    rows = '\n'.join(
        f'  {name:<10} {verb.help}' + (f'  [{verb.extra}]' if verb.extra else '') for name, verb in VERBS.items()
    )
    return (
        f'mdnc {__version__}: residual networks for signals, images and volumes\n\n'
        f'usage: mdnc VERB [options]        mdnc VERB --help\n\n{rows}\n\n'
        "A verb marked [extra] needs: pip install 'mdnc[extra]'\n"
        '--traceback   with any verb: show the traceback of an error'
    )


def _call(name: str, argv: list[str]) -> int:
    verb = VERBS[name]
    module, function = verb.entry.split(':')
    if not sys.flags.safe_path and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a recipe may name classes of the working directory
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
        print(f'mdnc: error: unknown verb {name!r}; choose from: {", ".join(VERBS)}', file=sys.stderr)
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
        # A worker's or a library's message may be long; all of it is shown, without the traceback.
        text = str(error) or type(error).__name__
        print(f'mdnc {name}: error: {text}', file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Verb and arguments; None: those of the process.

    Returns:
        The exit code: 0; 1 if the run failed; 2 if the request was wrong; 130 and 143 after SIGINT and SIGTERM.
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
    # Buffered output fails here; otherwise Python would report it at exit in its own words.
    try:
        print(end='', flush=True)
    except BrokenPipeError:  # the reader closed the pipe, as in `mdnc summary … | head`
        return _write_nothing_more(141)
    except OSError as error:
        if code == 0:
            print(f'mdnc: error: the output cannot be written: {error.strerror}', file=sys.stderr)
        return _write_nothing_more(code or 1)
    return code


def _write_nothing_more(code: int) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
