"""Examples of docstrings, run: what is written, and what it prints."""

import ast
import contextlib
import doctest
import io
import linecache
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_LONGER = Path(__file__).parent / 'longer_examples'


@dataclass
class Run:
    """An example that was run.

    Args:
        code: What is written.
        output: What it prints, and what its last expressions are, as Python's prompt shows them.
        names: What its names stand for afterwards.
    """

    code: str
    output: str
    names: dict[str, Any] = field(repr=False)


def run(text: str, importable: Mapping[str, str]) -> Run:
    """Run an example of ``>>>`` lines.

    Args:
        text: The lines.
        importable: Packages of public names: those that the example uses as they stand in its module are imported.

    Raises:
        AssertionError: It does not print what is written under it.
    """
    statements = doctest.DocTestParser().get_examples(text)
    assert not any(doctest.SKIP in each.options for each in statements), f'this example is not run:\n{text}'
    code = '\n'.join(re.sub(r' +# doctest: \+\w+', '', each.source.rstrip('\n')) for each in statements)
    imports = [f'from {importable[name]} import {name}' for name in _missing(code) if name in importable]
    found = execute('\n'.join([*imports, code]))
    wanted = ''.join(each.want for each in statements)
    told = doctest.OutputChecker().check_output(wanted, f'{found.output}\n' if found.output else '', _FLAGS)
    if wanted and not told and 'Traceback' not in wanted:
        raise AssertionError(f'{code}\nprints\n{found.output}\nnot\n{wanted}')
    return found


_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _missing(code: str) -> list[str]:
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name | ast.alias)]
    known = {(each.asname or each.name).split('.')[0] for each in names if isinstance(each, ast.alias)}
    known |= {each.id for each in names if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    used = (each.id for each in names if isinstance(each, ast.Name))
    return [name for name in dict.fromkeys(used) if name not in known]


def execute(code: str) -> Run:
    """Run lines of Python, and show what a prompt would."""
    torch.manual_seed(0)
    names: dict[str, Any] = {'__name__': '__main__'}
    linecache.cache['<example>'] = (len(code), None, code.splitlines(keepends=True), '<example>')
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), _temporary_folder():
        for statement in ast.parse(code).body:
            mode = 'single' if isinstance(statement, ast.Expr) else 'exec'
            tree = ast.Interactive([statement]) if mode == 'single' else ast.Module([statement], [])
            try:
                exec(compile(tree, '<example>', mode), names)
            except Exception as error:  # examples show refusals too
                print(f'{type(error).__name__}: {error}')
    return Run(code, shown.getvalue().rstrip('\n'), names)


@contextlib.contextmanager
def _temporary_folder() -> Iterator[None]:
    """Whatever examples write into temporary folders goes with this one."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def longer(name: str) -> list[Run]:
    """The examples of a name that are too long for its docstring, run."""
    return [execute(path.read_text(encoding='utf-8').strip()) for path in sorted(_LONGER.glob(f'{name}-*.py'))]


def instances(run: Run, cls: type) -> Iterator[Any]:
    """The objects of a class that an example has made."""
    yield from (value for value in run.names.values() if isinstance(value, cls))
