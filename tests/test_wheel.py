"""What is published: built from the source distribution, installed without any extra, used from another folder."""

import email
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import mdnc
from tests.test_documents import shows
from tools.guides import ROOT, blocks

pytestmark = pytest.mark.slow
EXTRAS = ('numpy', 'lightning', 'torchmetrics', 'matplotlib', 'sklearn', 'onnx', 'PIL', 'h5py', 'yaml')


def run(*command, cwd, **environment):
    environment = {**{name: os.environ[name] for name in ('PATH', 'HOME') if name in os.environ}, **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp('source')
    run(sys.executable, '-m', 'hatchling', 'build', '-t', 'sdist', '-d', str(folder), cwd=ROOT)
    return next(folder.glob('*.tar.gz'))


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    """The wheel as whoever has no wheel builds it: from what the source distribution holds."""
    folder = tmp_path_factory.mktemp('wheel')
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter='data')
    [unpacked] = folder.glob('mdnc-*')
    run(sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', str(folder), cwd=unpacked)
    return next(folder.glob('*.whl'))


def needs_of(name, found):
    """Distributions that one needs, itself among them."""
    if name not in found:
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({'extra': ''}):
                needs_of(need.name, found)
    return found


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory):
    """A virtual environment with the wheel, and of all that is installed here only torch and what it needs."""
    folder = tmp_path_factory.mktemp('bare')
    run(sys.executable, '-m', 'venv', '--without-pip', str(folder / 'venv'), cwd=folder)
    lent = folder / 'lent'
    lent.mkdir()
    for name in needs_of('torch', set()):
        files = importlib.metadata.files(name)
        for part in {file.parts[0] for file in files} - {'..', '__pycache__'}:
            (lent / part).symlink_to(Path(files[0].locate()).parents[len(files[0].parts) - 1] / part)
    python = folder / 'venv/bin/python'
    install = ('install', '--quiet', '--no-deps', '--no-index', str(wheel))
    run(sys.executable, '-m', 'pip', '--python', str(python), *install, cwd=folder)
    [packages] = (folder / 'venv/lib').glob('python*/site-packages')
    (packages / 'torch.pth').write_text(f'{lent}\n')
    return python


def test_the_source_distribution_holds_what_tests_and_pages_are_made_of(source):
    with tarfile.open(source) as archive:
        held = {name.partition('/')[2] for name in archive.getnames()}
    wanted = {'README.md', 'LICENSE', 'CITATION.cff', 'CONTRIBUTING.md', 'Makefile', 'constraints.txt', 'mkdocs.yml'}
    folders = ('src/mdnc', 'tests', 'docs', 'tools', 'recipes', 'benchmarks')
    assert wanted <= held
    assert all(any(name.startswith(f'{folder}/') for name in held) for folder in folders)
    assert not [name for name in held if re.match(r'docs/(reference|source)/|site/|runs/', name)]


def test_the_wheel_holds_what_the_sources_hold(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = run('git', 'ls-files', 'src/mdnc', 'recipes', cwd=ROOT) if (ROOT / '.git').exists() else ''
    wanted = {name.removeprefix('src/') if name.startswith('src/') else f'mdnc/{name}' for name in tracked.split()}
    kinds = {Path(name).suffix for name in held}
    assert {'.py', '.cpp', '.h', '.jinja', '.yaml'} <= kinds
    assert 'mdnc/py.typed' in held
    assert wanted <= held
    assert not [name for name in held if name.split('/')[0] not in ('mdnc', f'mdnc-{mdnc.__version__}.dist-info')]


def test_its_metadata_are_valid(wheel):
    archive = zipfile.ZipFile(wheel)
    text = archive.read(f'mdnc-{mdnc.__version__}.dist-info/METADATA')
    metadata = Metadata.from_email(text, validate=True)
    assert (metadata.name, str(metadata.version)) == ('mdnc', mdnc.__version__)
    assert metadata.license_expression == 'MIT'
    assert metadata.description_content_type == 'text/markdown'
    assert email.message_from_bytes(text).get_payload().lstrip().startswith('# mdnc')
    core = [need.name for need in metadata.requires_dist if need.marker is None]
    assert core == ['torch']


def test_the_environment_is_bare(bare, tmp_path):
    code = f'import importlib.util as i; print([name for name in {EXTRAS} if i.find_spec(name)])'
    assert run(str(bare), '-c', code, cwd=tmp_path) == '[]\n'


def test_the_documented_example_runs_from_another_folder(bare, tmp_path):
    page = [*blocks(ROOT / 'README.md'), None]
    number = next(
        n for n, block in enumerate(page) if block and block.language == 'python' and 'summary(' in block.code
    )
    output = run(str(bare), '-c', f'import mdnc\n{page[number].code}', cwd=tmp_path)
    assert page[number + 1].language == 'text'
    assert shows(page[number + 1].code, output), output


def test_the_command_runs_from_another_folder(bare, tmp_path):
    line = next(line for line in (ROOT / 'README.md').read_text().splitlines() if line.startswith('mdnc summary '))
    output = run('bash', '-c', line.replace('mdnc', str(bare.with_name('mdnc')), 1), cwd=tmp_path)
    assert 'Total params: 31,190,816' in output


def test_what_an_extra_brings_is_asked_for_by_its_line(bare, tmp_path):
    code = 'import mdnc\ntry:\n    mdnc.training.train\nexcept ImportError as error:\n    print(error)'
    assert "pip install 'mdnc[train]'" in run(str(bare), '-c', code, cwd=tmp_path)
