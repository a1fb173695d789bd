"""Write the pages of the reference, those of the sources that they lead to, and the site's configuration.

    python -m tools.reference

writes below ``docs/`` and beside ``mkdocs.yml``; git knows nothing of what it writes.
"""

import os
import shutil
import subprocess
import warnings
from pathlib import Path

from tools.reference.members import PACKAGES, SOURCES, Member, members
from tools.reference.page import render
from tools.reference.site import Site

ROOT = Path(__file__).parents[2]
CONFIGURATION = 'mkdocs.built.yml'
_UNSEARCHED = '---\nsearch:\n  exclude: true\n---\n\n'
_PLACE = '  - Reference: reference/index.md'


def main() -> None:
    """Write all pages anew below ``docs/reference`` and ``docs/source``, and the configuration that lists them."""
    docs = ROOT / 'docs'
    found = members()
    files = sorted({member.source[0] for member in found})
    site = Site(found, {path: f'source/{path.with_suffix("").as_posix()}.md' for path in files})
    for folder in ('reference', 'source'):
        shutil.rmtree(docs / folder, ignore_errors=True)
    for member in found:
        _write(docs / 'reference' / f'{member.page}.md', render(member, site))
    for path, page in site.sources.items():
        code = (SOURCES / path).read_text(encoding='utf-8')
        _write(docs / page, f'{_UNSEARCHED}# {path.as_posix()}\n\n~~~~python linenums="1"\n{code}\n~~~~\n')
    _write(docs / 'reference' / 'index.md', _index(found))
    configuration = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
    assert _PLACE in configuration, f'mkdocs.yml has no line {_PLACE!r}'
    _write(ROOT / CONFIGURATION, _repository() + configuration.replace(_PLACE, _navigation(found)))


def _repository() -> str:
    """The line that links the site with its repository: the one on GitHub that builds it, or what was cloned."""
    server, name = os.environ.get('GITHUB_SERVER_URL'), os.environ.get('GITHUB_REPOSITORY')
    asked = ['git', '-C', str(ROOT), 'remote', 'get-url', 'origin']
    cloned = '' if server else subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    address = f'{server}/{name}' if server else cloned.removesuffix('.git')
    return f'repo_url: {address}\n' if address.startswith('https://') else ''


def _navigation(found: list[Member]) -> str:
    lines = ['  - Reference:', '    - reference/index.md']
    for package in PACKAGES:
        listed = [member for member in found if member.package == package]
        lines += [f'    - {package}:'] if listed else []
        lines += [f'      - {member.name}: reference/{member.page}.md' for member in listed if not member.is_preset]
        presets = [member for member in listed if member.is_preset]
        lines += ['      - Presets:'] if presets else []
        lines += [f'        - {member.name}: reference/{member.page}.md' for member in presets]
    return '\n'.join(lines)


def _index(found: list[Member]) -> str:
    lines = ['# Reference', '', 'Every public class and function has a page.']
    for package in PACKAGES:
        listed = [member for member in found if member.package == package]
        lines += ['', f'## {package}', '', '| Name | |', '| :-- | :-- |'] if listed else []
        lines += [
            f'| [`{each.name}`]({each.page}.md) | {each.words.split(chr(10) + chr(10))[0].replace(chr(10), " ")} |'
            for each in listed
        ]
    return '\n'.join(lines) + '\n'


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    main()
