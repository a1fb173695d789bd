"""The pages for signals, images and volumes, followed literally; ``python -m tools.guides`` draws their pictures anew.

The report is photographed by Debian's chromium.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[1]
GUIDES = ('signals', 'images', 'volumes')
PICTURES = {  # name of a picture: page, and what its run wrote
    'signals': ('signals', 'runs/speakers/results.png'),
    'images': ('images', 'runs/coins/results.png'),
    'volumes': ('volumes', 'runs/tissue/results.png'),
    'report': ('images', 'runs/kinds/report.html'),
}
_WIDTH, _COLOURS = 900, 64
# A block that needs what a test has not, say two machines, is preceded by a comment with the reason.
_BLOCK = re.compile(
    r'^(?:<!-- not run: (?P<reason>[^\n]+) -->\n+)?```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
# One process does all that a page says: to start a Python for each line would take longer than what it does.
_FOLLOWING = """
import contextlib, io, json, shlex, sys
from mdnc.cli import main

namespace = {}
for language, code, shown in json.load(sys.stdin):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if language == 'python':
            exec(code, namespace)
        for line in code.splitlines() if language == 'sh' else ():
            words = shlex.split(line)
            assert words[0] == 'mdnc', line
            if main(words[1:]):
                sys.exit(f'this fails: {line}')
    print(json.dumps([code, shown, output.getvalue()]), flush=True)
"""


class Block(NamedTuple):
    """A block of code of a page: what a test may do with it, and where it stands."""

    language: str
    code: str
    line: int
    reason: str | None


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code of a page."""
    text = page.read_text(encoding='utf-8')
    for match in _BLOCK.finditer(text):
        yield Block(match['language'], match['code'], text.count('\n', 0, match.start('code')), match['reason'])


def follow(page: Path, folder: Path) -> list[tuple[str, str, str]]:
    """Do what a page says in a folder: the code of each block, what the page shows below it, and what it prints."""
    todo = [
        (block.language, block.code, after.code if after is not None and after.language == 'text' else '')
        for block, after in pairwise([*blocks(page), None])
        if block is not None and block.language in ('sh', 'python') and block.reason != 'it installs packages'
    ]
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT / "src"}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', _FOLLOWING],
        cwd=folder,
        env=environment,
        input=json.dumps(todo),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def _photograph(page: Path, path: Path) -> None:
    words = ('--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', f'--window-size={_WIDTH},900')
    subprocess.run(['chromium', *words, f'--screenshot={path}', page.as_uri()], check=True, capture_output=True)


def _shrink(source: Path, path: Path) -> None:
    with Image.open(source) as image:
        wide = image.convert('RGB')
    wide.thumbnail((_WIDTH, 2 * _WIDTH))
    wide.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Follow the pages and put the pictures of their runs into the documentation."""
    with tempfile.TemporaryDirectory() as folder:
        for guide in GUIDES:
            (Path(folder) / guide).mkdir()
            follow(ROOT / f'docs/{guide}.md', Path(folder) / guide)
        for name, (guide, written) in PICTURES.items():
            found = Path(folder) / guide / written
            if found.suffix == '.html':
                _photograph(found, found.with_suffix('.png'))
            _shrink(found.with_suffix('.png'), ROOT / f'docs/pictures/{name}.png')


if __name__ == '__main__':
    main()
