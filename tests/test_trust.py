"""What docs/trust.md says of the files of others: read or refused in a sentence, nothing run."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import mdnc
from mdnc import _archive, _bundle, checkpoints
from mdnc.cli import main
from mdnc.modules import resnet

PAGE = Path(__file__).parents[1] / 'docs' / 'trust.md'
BYTES = 2**32  # the most that a process of these tests may take, torch and its libraries among it


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp('saved')
    resnet.EncoderNet1d(2, [1, 1]).save_pretrained(path)
    return path


class Run:
    """Unpickling one of these would leave a mark."""

    def __reduce__(self):
        return (open, ('RUN', 'w'))


def forge(saved, folder, change):
    """A folder with another configuration under a right checksum."""
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    change(config)
    config['checksum'] = _bundle._checksum(config)
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    return folder


def sealed(raw):
    """An archive under the mark and the right checksum of mdnc's own."""
    return raw + _archive._MARK + hashlib.sha256(raw).digest()


def archive(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def contents(arguments=None, data=None, **weights):
    net = resnet.EncoderNet1d(2, [1, 1])
    state = {f'network.{key}': weights.get(key.replace('.', '_'), value) for key, value in net.state_dict().items()}
    network = {'name': 'EncoderNet1d', 'arguments': net.config | (arguments or {})}
    return {'state_dict': state, 'hyper_parameters': {'network': network, 'data': data}}


def rezipped(raw, replaced=(), method=zipfile.ZIP_STORED):
    """The same archive with another compression, and some of its members filled."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(out, 'w', method) as target:
        for name in source.namelist():
            filled = next((content for end, content in replaced if name.endswith(end)), None)
            target.writestr(name, source.read(name) if filled is None else filled)
    return out.getvalue()


def overlapping(raw, times):
    """An archive whose directory names each member many times."""
    out = io.BytesIO(raw)
    with zipfile.ZipFile(out, 'a') as target:
        target.filelist *= times
        target.comment = b''
        target._didModify = True
    return out.getvalue()


def aliased(levels=60):
    value = []
    for _ in range(levels):
        value = [value] * 9
    return value


def endless():
    value = []
    value.append(value)
    return value


SHAPE = r'netbody\.0\.weight has shape \(2, 1, 5\) instead of '
FOLDERS = {
    'more blocks than weights': (lambda c: c.update(layers=[100000, 1]), r'layers=\[100000, 1\]: it has 35 tensors'),
    'more stages than weights': (lambda c: c.update(layers=[1] * 100000), r'layers=\[1, 1, .*\]: it has 35 tensors'),
    'blocks beyond counting': (lambda c: c.update(layers=[10**400, 1]), 'it has 35 tensors'),
    'a width': (lambda c: c.update(channel=10**12), SHAPE + r'\(1000000000000, 1, 5\)'),
    'a width of more than 64 bits': (lambda c: c.update(in_planes=10**400), SHAPE + r'\(2, 10+, 5\)'),
    'a long vector': (lambda c: c.update(out_length=10**18), r'fc\.weight has shape \(2, 4\) instead of \(10+, 4\)'),
    'a kernel': (lambda c: c.update(kernel_size=[10**30 + 1]), 'kernel_size=.*1000|too large'),
    'a wide kernel': (lambda c: c.update(kernel_size=[10**9 + 1]), SHAPE),
    'a long word': (lambda c: c.update(block='x' * 10**7), "block='xxxxxxxxxxxx...xxxxxxxxxxxxx' must be one of"),
    'a long name': (lambda c: c.update({'x' * 10**7: 1}), r"unknown arguments \['xxxxxxxxxxxx\.\.\.xxxxxxxxxxxxx'\]"),
}


@pytest.mark.parametrize(('change', 'text'), FOLDERS.values(), ids=FOLDERS)
def test_arguments_that_the_weights_are_not_of(change, text, saved, tmp_path, monkeypatch):
    folder = forge(saved, tmp_path / 'forged', lambda config: change(config['network']['arguments']))
    monkeypatch.setattr(torch.nn.Conv1d, '__init__', None)  # nothing is built
    with pytest.raises(ValueError, match=text) as caught:
        checkpoints.load(folder)
    assert len(str(caught.value)) < 1000


def test_a_decoder_of_any_size_is_refused_by_its_weights(saved, tmp_path):
    decoder = {'name': 'DecoderNet3d', 'arguments': {'channel': 2, 'layers': [1, 1], 'out_size': 10**9}}
    with pytest.raises(ValueError, match=r'DecoderNet3d\(|too large for any memory'):
        checkpoints.load(forge(saved, tmp_path / 'forged', lambda config: config.update(network=decoder)))


NAMES = ('../outside', '/etc/passwd', 'a/b', '..', '', 'x' * 64, 'A' * 64, '0' * 63 + '/', 3, None, ['0' * 64])


@pytest.mark.parametrize('name', NAMES, ids=repr)
def test_paths_in_a_folder_lead_nowhere(name, saved, tmp_path):
    folder = forge(saved, tmp_path / 'forged', lambda config: config['parts']['model'].update(sha256=name))
    with pytest.raises(ValueError, match='a value has the wrong type'):
        checkpoints.load(folder)


def test_links_lead_to_what_the_checksum_says_or_nowhere(saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path / 'linked'))
    (model,) = folder.glob('model-*')
    model.rename(tmp_path / 'elsewhere')
    model.symlink_to(tmp_path / 'elsewhere')
    assert type(checkpoints.load(folder)) is resnet.EncoderNet1d  # as the cache of the hub does it
    secret = tmp_path / 'secret'
    secret.write_text('password', encoding='utf-8')
    for target in (secret, '/dev/zero', tmp_path, tmp_path / 'none'):
        model.unlink()
        model.symlink_to(target)
        with pytest.raises((ValueError, FileNotFoundError), match=model.name) as caught:
            checkpoints.load(folder)
        assert 'password' not in str(caught.value)


def test_pipes_and_devices_are_no_checkpoints(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path / 'pipe', '/dev/zero'):
        with pytest.raises(ValueError, match='is no file but a device or a pipe'):
            checkpoints.load(path)
    (tmp_path / 'last.ckpt').mkdir()
    with pytest.raises(FileNotFoundError, match=r'last\.ckpt holds no config\.json of save_pretrained'):
        checkpoints.load(tmp_path / 'last.ckpt')
    with pytest.raises(IsADirectoryError, match='is a folder, and a checkpoint is one file'):
        _archive.load_archive(tmp_path)


@pytest.mark.parametrize('depth', [400, 900, 985, 10**5])
def test_deep_nesting_is_read_or_refused(depth, saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path / 'deep'))
    text = (folder / 'config.json').read_text(encoding='utf-8')
    deep = text.replace('"data": null', '"data": {"a": ' + '[' * depth + ']' * depth + '}')
    assert deep != text
    (folder / 'config.json').write_text(deep, encoding='utf-8')
    with pytest.raises(ValueError, match='is damaged'):
        checkpoints.load(folder)


def test_large_configurations_are_neither_read_nor_written(saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path / 'large'))
    (folder / 'config.json').write_text('[' + '[],' * 2**23 + '[]]', encoding='utf-8')
    with pytest.raises(ValueError, match='it has more than 16777216 bytes'):
        checkpoints.load(folder)
    with pytest.raises(ValueError, match='give less as data'):
        resnet.EncoderNet1d(2, [1, 1]).save_pretrained(tmp_path / 'new', {'text': 'x' * 2**24})
    assert not (tmp_path / 'new').exists()


def test_a_golden_of_another_kind_is_refused(saved, tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    folder = Path(shutil.copytree(saved, tmp_path / 'golden'))
    (path,) = folder.glob('golden-*')
    golden = safetensors.load(path.read_bytes())
    for output in (golden['output'] > 0, golden['output'].int(), golden['output'] * float('nan')):
        raw = safetensors.save({**golden, 'output': output}, metadata={'format': 'pt'})
        checksum = hashlib.sha256(raw).hexdigest()
        forge(saved, folder, lambda config, sum_=checksum: config['parts']['golden'].update(sha256=sum_))
        (folder / _bundle._part_name('golden', checksum)).write_bytes(raw)
        with pytest.raises(ValueError, match='its output for the saved example differs'):
            checkpoints.load(folder)


SPREAD = torch.zeros(1).expand(10**5, 2)
CHECKPOINTS = {
    'code': (lambda: archive({'state_dict': {}, 'hyper_parameters': Run()}), 'it names io.open'),
    'code in a plain pickle': (lambda: pickle.dumps(Run()), 'is damaged|names'),
    'code among the weights': (lambda: archive(contents(fc_weight=Run())), 'it names io.open'),
    'more blocks than weights': (lambda: archive(contents({'layers': [10**5, 1]})), 'it has 35 tensors'),
    'a width': (lambda: archive(contents({'channel': 10**12})), r'instead of \(1000000000000, 1, 5\)'),
    'a spread weight': (
        lambda: archive(contents({'out_length': 10**5}, fc_weight=SPREAD)),
        r'fc\.weight is expanded to its shape',
    ),
    'overlapping weights': (
        lambda: archive(contents(netbody_0_weight=torch.zeros(6).as_strided((2, 1, 5), (1, 1, 1)))),
        r'netbody\.0\.weight is expanded to its shape \(2, 1, 5\)',
    ),
    'no values': (lambda: archive(contents(fc_weight=torch.zeros(2, 4, device='meta'))), 'no values for fc.weight'),
    'a sparse weight': (lambda: archive(contents(fc_weight=torch.zeros(2, 4).to_sparse())), 'is not a dense tensor'),
    'no weight': (lambda: archive(contents(fc_weight=3)), 'is not named by a str'),
    'lists in each other': (lambda: archive(contents({'layers': aliased()})), 'more than 1000000 things'),
    'lists in each other as data': (lambda: archive(contents(data={'a': aliased()})), 'more than 1000000 things'),
    'a list in itself': (lambda: archive(contents(data={'a': endless()})), 'more than 1000000 things'),
    'data of another kind': (lambda: archive(contents(data=[1])), 'is not named by a str'),
    'arguments without names': (lambda: archive(contents({1: 2, 'a': 3})), 'arguments by name'),
    'a bomb': (
        lambda: rezipped(archive(contents()), [('data/0', b'\0' * 2**26)], zipfile.ZIP_DEFLATED),
        r'compresses nothing: its \d+ bytes unpack into \d+',
    ),
    'overlapping members': (lambda: overlapping(archive(contents()), 50), r'its \d+ bytes unpack into \d+'),
    'compressed code': (lambda: rezipped(archive(contents()), (), zipfile.ZIP_DEFLATED), 'compresses nothing'),
}


@pytest.mark.parametrize('seal', [sealed, bytes], ids=['sealed', 'plain'])
@pytest.mark.parametrize(('make', 'text'), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints_of_others(make, text, seal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'last.ckpt'
    path.write_bytes(seal(make()))
    with pytest.raises(ValueError, match=text) as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [each.name for each in tmp_path.iterdir()] == ['last.ckpt']


@pytest.mark.parametrize(('make', 'text'), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints_of_others_as_tasks(make, text, tmp_path, monkeypatch):
    tasks = pytest.importorskip('mdnc.training')
    monkeypatch.chdir(tmp_path)
    Path('last.ckpt').write_bytes(sealed(make()))
    with pytest.raises(ValueError, match=text) as caught:
        tasks.Classification.load_from_checkpoint('last.ckpt')
    assert len(str(caught.value)) < 1000
    assert [each.name for each in tmp_path.iterdir()] == ['last.ckpt']


@pytest.mark.parametrize('settings', [{'classes': aliased()}, {3: 4}, {'': 3}])
def test_settings_of_others(settings, tmp_path):
    tasks = pytest.importorskip('mdnc.training')
    whole = contents()
    whole['hyper_parameters'] |= settings
    (tmp_path / 'last.ckpt').write_bytes(sealed(archive(whole)))
    for load in (checkpoints.load, tasks.Classification.load_from_checkpoint):
        with pytest.raises(ValueError, match='says more than 1000000 things, or not by name'):
            load(tmp_path / 'last.ckpt')


def test_an_honest_checkpoint_is_read(tmp_path):
    for seal in (sealed, bytes):
        (tmp_path / 'last.ckpt').write_bytes(seal(archive(contents(data={'classes': ['a']}))))
        assert checkpoints.load(tmp_path / 'last.ckpt').origin.data == {'classes': ['a']}


def test_state_dicts_of_others():
    state = resnet.EncoderNet1d(2, [1, 1]).state_dict()
    into = resnet.EncoderNet1d(2, [1, 1])
    bad = {
        'is expanded to its shape': SPREAD,
        'is not a dense tensor': state['fc.weight'].to_sparse(),
    }
    for text, value in bad.items():
        for use in (mdnc.rebuild, lambda given: mdnc.load_into(into, given)):
            with pytest.raises(ValueError, match=f'fc.weight {text}'):
                use({**state, 'fc.weight': value})
    with pytest.raises(ValueError, match=r'layers=\[10000, 1\]: it has 35 tensors'):
        mdnc.rebuild(state, layers=[10000, 1])
    with pytest.raises(ValueError, match=r'channel=1000.* is not what the shapes say: 2'):
        mdnc.rebuild(state, channel=10**30)
    report = mdnc.load_into(into, {**state, 'fc.weight': state['fc.weight'].to('meta')})
    assert 'on the meta device' in str(report)


def test_many_names_are_read_once():
    # By looking through all names for each block, these would take a quarter of an hour.
    state = resnet.EncoderNet1d(2, [1, 1]).state_dict()
    one = torch.zeros(1)
    state |= {f'netbody.1.conv_list.{number}.conv1.0.weight': one for number in range(30000)}
    with pytest.raises(ValueError, match=r'it names 3000\d blocks in 30035 tensors'):
        mdnc.rebuild(state)


def test_batches_and_descriptions_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save('objects.npy', np.array([Run()]), allow_pickle=True)
    torch.save(Run(), 'code.pt')
    Path('compressed.pt').write_bytes(rezipped(archive(torch.zeros(2**24)), (), zipfile.ZIP_DEFLATED))
    Path('nan.json').write_text('{"modules": ' + '[' * 10**5, encoding='utf-8')
    net = ['EncoderNet1d', '--channel', '2', '--layers', '[1,1]']
    for words in (
        ['diagnose', *net, '--batch', 'objects.npy'],
        ['diagnose', *net, '--batch', 'code.pt'],
        ['diagnose', *net, '--batch', 'compressed.pt'],
        ['summary', *net, '--input_size', '[1,9]', '--against', 'nan.json'],
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        assert words[-1] in error
    assert not Path('RUN').exists()


@pytest.mark.parametrize('verb', ['forecast', 'diagnose', 'draw', 'export'])
def test_commands_that_take_a_network_run_nothing_of_it(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('last.ckpt').write_bytes(sealed(archive({'state_dict': {}, 'hyper_parameters': Run()})))
    more = {'draw': ['--output', 'net.svg'], 'export': ['--output', 'net.onnx']}.get(verb, [])
    assert main([verb, 'last.ckpt', *more]) == 2
    assert 'it names io.open' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['last.ckpt']


BOUNDED = """
import resource, sys
import mdnc
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
try:
    mdnc.checkpoints.load(sys.argv[1])
except ValueError as error:
    print(str(error)[:500])
"""


@pytest.mark.parametrize('kind', ['folder', 'checkpoint', 'bomb'])
def test_a_small_file_takes_no_memory_and_no_time(kind, saved, tmp_path):
    path = tmp_path / kind
    if kind == 'folder':
        forge(saved, path, lambda config: config['network']['arguments'].update(layers=[100000, 1]))
    elif kind == 'checkpoint':
        path.write_bytes(sealed(archive(contents({'layers': [100000, 1]}))))
    else:
        path.write_bytes(sealed(rezipped(archive(contents()), [('data/0', b'\0' * 2**28)], zipfile.ZIP_DEFLATED)))
    words = [sys.executable, '-W', 'ignore', '-c', BOUNDED, str(path), str(BYTES)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout


def test_what_runs_code_is_said_to(tmp_path):
    # The page's second table is no caution too many: these files do run code.
    text = PAGE.read_text(encoding='utf-8').split('## Files that can run code')[1]
    rows = re.findall(r'^\| (?!file|---)([^|]+) \|', text, re.MULTILINE)
    assert len(rows) == 4
    assert [next(word for word in ('recipe', 'run', '.pt2', 'cache') if word in row) for row in rows] == [
        'recipe', 'run', '.pt2', 'cache',
    ]  # fmt: skip
    recipe = tmp_path / 'recipe.yaml'
    recipe.write_text('trainer:\n  callbacks:\n    - class_path: os.mkdir\n', encoding='utf-8')
    (tmp_path / 'mine.py').write_text("open('RUN', 'w')\n", encoding='utf-8')
    recipe.write_text('data:\n  class_path: mine.Data\n', encoding='utf-8')
    words = [sys.executable, '-W', 'ignore', '-m', 'mdnc.cli', 'fit', '--config', 'recipe.yaml']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])}
    subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (tmp_path / 'RUN').exists()
