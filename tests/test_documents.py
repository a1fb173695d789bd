"""The pages tell the truth: their Python runs and prints what they show, their commands and recipes exist."""

import re
import shlex
from itertools import pairwise

import pytest

import mdnc
from mdnc.cli import VERBS, main
from mdnc.cli.recipe import recipe_names
from tools.guides import ROOT, blocks

MADE = {'reference', 'source'}  # by tools/reference, which runs what it writes
PAGES = sorted(
    page
    for page in [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')]
    if page.relative_to(ROOT / 'docs' if ROOT / 'docs' in page.parents else ROOT).parts[0] not in MADE
)
COMPUTES_NOTHING = {'summary', 'forecast'}  # verbs that are cheap enough to be run as they stand


def shows(text, output):
    """Whether the parts of ``text`` between lines of ``…`` stand in ``output`` one after the other."""
    place, output = 0, ' '.join(output.split())
    for part in re.split(r'^…$', text, flags=re.MULTILINE):
        part = ' '.join(part.split())
        found = output.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return True


def names(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    'page', [page for page in PAGES if any(b.language == 'python' for b in blocks(page))], ids=names
)
def test_python_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {'__name__': page.stem}
    for block, after in pairwise([*blocks(page), None]):
        if block.language != 'python' or block.reason:
            continue
        # The empty lines in front make a traceback name the page's own line.
        exec(compile('\n' * block.line + block.code, str(page), 'exec'), namespace)
        output = capsys.readouterr().out
        if after is not None and after.language == 'text':
            assert shows(after.code, output), f'{page.name}, line {after.line}: this is printed:\n{output}'


def commands():
    for page in PAGES:
        for block in blocks(page):
            if block.language in ('sh', 'bash', 'console') and not block.reason:
                code = block.code.replace('\\\n', ' ')
                yield from ((page, line.strip().removeprefix('$ ')) for line in code.splitlines())


def run_of(line):
    words = shlex.split(line, comments=True)
    return words[1:] if words[:1] == ['mdnc'] else None


COMMANDS = sorted({line for _, line in commands() if run_of(line) is not None})


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_are_understood(line, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    verb, *words = run_of(line)
    if 'plan.yaml' in words and verb != 'plan':  # which `mdnc plan` has written
        (tmp_path / 'plan.yaml').write_text((ROOT / 'recipes' / 'gunpoint.yaml').read_text())
        monkeypatch.chdir(tmp_path)
    assert verb in VERBS or verb in ('--help', '--version')
    if verb in COMPUTES_NOTHING:
        assert main([verb, *words]) == 0
    elif '--config' in words:
        with pytest.raises(SystemExit) as exit_info:
            main([verb, *words, '--print_config'])
        assert not exit_info.value.code, capsys.readouterr().err


def test_targets_of_make_exist():
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    named = {word for _, line in commands() for word in re.findall(r'^make ([\w-]+)', line)}
    assert named
    assert named <= targets


def test_recipes_exist():
    text = '\n'.join(page.read_text(encoding='utf-8') for page in PAGES)
    named = set(re.findall(r'recipes/([\w-]+)\.yaml', text)) | set(
        re.findall(r'--config ([a-z][\w-]+)(?![\w./-])', text)
    )
    assert named
    assert named <= set(recipe_names())


@pytest.mark.parametrize('page', sorted(ROOT.glob('*.md')), ids=names)
def test_links_lead_somewhere(page):  # those between the pages of docs/ are checked by the strict docs build
    links = re.findall(r'\]\((?!\w+:)([^)#\s]+)', page.read_text(encoding='utf-8'))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_citation_is_of_this_version():
    assert f'\nversion: {mdnc.__version__}\n' in (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
