"""Networks that were saved come back the same, or are refused."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import mdnc
from mdnc import _bundle, _files, checkpoints, ops
from mdnc.modules import _pretrained, resnet
from tests.catalogue import CLASSES, VARIANTS

NETWORKS = [entry for entry in (*CLASSES, *VARIANTS) if not entry.name.startswith('Block')]
DATA = {'normalisation': {'mean': [0.25], 'std': [1.5]}, 'classes': ['Möwe', 'gull'], 'size': (3, None, True)}


def _encoder(**more):
    return resnet.EncoderNet2d(4, [2, 1], **more)


def _equal(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize('entry', NETWORKS, ids=lambda entry: entry.name)
def test_every_network_comes_back(entry, tmp_path):
    net = entry.build()
    net.save_pretrained(tmp_path / 'deep' / 'folder', DATA)
    random = torch.get_rng_state()
    for again in (type(net).from_pretrained(tmp_path / 'deep' / 'folder'), checkpoints.load(tmp_path / 'deep/folder')):
        assert type(again) is type(net)
        assert again.config == net.config
        assert _equal(again, net)
        assert not again.training
        assert all(parameter.requires_grad for parameter in again.parameters())
        assert again.origin.difference <= 1e-5
        assert again.origin.data == json.loads(json.dumps(DATA))
        torch.testing.assert_close(again(entry.sample()), net.eval()(entry.sample()))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_a_dtype_comes_back(dtype, tmp_path):
    net = _encoder().to(dtype)
    net.save_pretrained(tmp_path)
    again = checkpoints.load(tmp_path)
    assert _equal(again, net)
    assert again.fc.weight.dtype == dtype


def test_saving_changes_nothing_of_the_network(tmp_path):
    net = _encoder().train()
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    net.save_pretrained(tmp_path)
    assert net.training
    assert not calls
    assert net.origin is None


def test_channels_last_weights_and_slices_of_one_buffer_are_saved(tmp_path):
    last, sliced = _encoder().to(memory_format=torch.channels_last), _encoder()
    flat = torch.nn.utils.parameters_to_vector(sliced.parameters())
    torch.nn.utils.vector_to_parameters(flat, sliced.parameters())
    for net in (last, sliced):
        net.save_pretrained(tmp_path)
        assert _equal(checkpoints.load(tmp_path), net)


def test_a_user_class_loads_by_itself(tmp_path):
    class Mine(resnet.UNet1d):
        pass

    Mine(4, [1, 1]).save_pretrained(tmp_path)
    assert type(Mine.from_pretrained(tmp_path)) is Mine
    with pytest.raises(ValueError, match=r'holds a Mine, which is none of AE1d, .*EncoderNet1d'):
        checkpoints.load(tmp_path)


def test_data_is_kept_by_saving_what_was_loaded(tmp_path):
    _encoder().save_pretrained(tmp_path / 'a', {'classes': ['x']})
    checkpoints.load(tmp_path / 'a').save_pretrained(tmp_path / 'b')
    assert checkpoints.load(tmp_path / 'b').origin.data == {'classes': ['x']}


@pytest.mark.parametrize(
    ('data', 'where'),
    [
        ({'path': Path('x')}, r"data\['path'\]"),
        ({'classes': ['a', {1, 2}]}, r"data\['classes'\]\[1\]"),
        ({'mean': torch.zeros(1)}, r"data\['mean'\]"),
        ({'mean': float('nan')}, r"data\['mean'\]"),
        ({'classes': {0: 'cat'}}, 'key 0'),
        ({'flag': b'x'}, r"data\['flag'\]"),
        ({'half': '\ud800'}, r"data\['half'\]"),
        ({'count': 10**5000}, r"data\['count'\]"),
        ((lambda own: own.update(own=own) or own)({}), 'data holds itself'),
    ],
)
def test_what_json_cannot_keep_is_refused_when_saving(data, where, tmp_path):
    with pytest.raises(TypeError, match=where):
        _encoder().save_pretrained(tmp_path / 'new', data)
    assert not (tmp_path / 'new').exists()


def test_networks_that_could_not_be_rebuilt_are_refused_when_saving(tmp_path):
    net = _encoder()
    net.fc = torch.nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r'fc\.weight has shape \(5, 8\) instead of \(2, 8\)'):
        net.save_pretrained(tmp_path)
    net = _encoder()
    net.netbody[2].conv_scale.conv1 = net.netbody[2].conv_scale.conv1.append(torch.nn.PReLU())
    with pytest.raises(ValueError, match=r'netbody\.2\.conv_scale\.conv1\.\d\.weight is unknown'):
        net.save_pretrained(tmp_path)
    net = _encoder()
    net.netbody[1].conv_list[0].conv1[0].bias = net.netbody[1].conv_list[0].conv1[0].weight
    with pytest.raises(ValueError, match='are shared'):
        net.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='meta device'):
        _encoder().to('meta').save_pretrained(tmp_path)
    net = _encoder()
    torch.nn.init.constant_(net.fc.weight, float('nan'))
    with pytest.raises(ValueError, match='not finite'):
        net.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_architectures_are_named(tmp_path):
    _encoder().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'contains EncoderNet2d, not UNet3d'):
        resnet.UNet3d.from_pretrained(tmp_path)


@pytest.mark.parametrize(('factor', 'noticed'), [(1 + 1e-5, True), (1 + 1e-8, False)])
def test_a_changed_function_is_noticed(factor, noticed, tmp_path):
    class EncoderNet2d(resnet.EncoderNet2d):
        """As if a later torch or mdnc computed something slightly else."""

        def forward(self, x):
            return super().forward(x) * factor

    _encoder().save_pretrained(tmp_path)
    if not noticed:
        assert 0 < EncoderNet2d.from_pretrained(tmp_path).origin.difference < 1e-7
        return
    with pytest.raises(ValueError, match=r'output for the saved example differs by 1\.0e-05'):
        EncoderNet2d.from_pretrained(tmp_path)


def test_a_large_decoder_is_checked_in_single_precision(tmp_path):
    net = resnet.DecoderNet2d(2, [1, 1, 1, 1], out_size=(130, 140))
    assert _pretrained._golden_input(net).dtype == torch.float32
    net.save_pretrained(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob('golden*')) < 10_000
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert checkpoints.load(tmp_path).origin.difference < 1e-4


def test_the_example_is_of_the_plain_path(tmp_path, monkeypatch):
    # Fused units may be compiled when they are first called, which loading has no need to wait for.
    monkeypatch.setattr(ops.fused, 'block', None)
    _encoder(memory='fast').save_pretrained(tmp_path)
    assert checkpoints.load(tmp_path).origin.difference < 1e-9


def test_ambient_settings_do_not_matter(tmp_path):
    net = _encoder()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast('cpu', dtype=torch.bfloat16), torch.device('meta'):
            net.save_pretrained(tmp_path)
            again = checkpoints.load(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.origin.difference <= 1e-5
    assert again.fc.weight.dtype == torch.float32
    assert again.fc.weight.device.type == 'cpu'


class Cut(BaseException):
    """A kill, as far as a running test can die."""


@pytest.mark.parametrize('step', range(4))
def test_a_save_cut_off_leaves_a_whole_network(step, tmp_path, monkeypatch):
    old, new = _encoder(), _encoder()
    old.save_pretrained(tmp_path)
    replace, calls = _files.os.replace, iter(range(9))

    def cutting(*arguments):
        if next(calls) == step:
            raise Cut
        replace(*arguments)

    monkeypatch.setattr(_files.os, 'replace', cutting)
    try:
        new.save_pretrained(tmp_path)
    except Cut:
        assert step < 3
    assert _equal(checkpoints.load(tmp_path), old if step < 3 else new)
    assert len(list(tmp_path.iterdir())) == (5 if step == 2 else 3)  # cut between the parts and config.json
    monkeypatch.undo()
    new.save_pretrained(tmp_path)
    assert _equal(checkpoints.load(tmp_path), new)
    assert not list(tmp_path.glob(f'*{_files.PART_SUFFIX}'))


def test_what_a_save_replaces_is_removed(tmp_path):
    for _ in range(3):
        _encoder().save_pretrained(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3


def test_another_save_into_the_folder_is_left_alone(tmp_path):
    _encoder().save_pretrained(tmp_path)
    (tmp_path / 'model-0123456789abcdef.safetensors').write_bytes(b'of a save half way')
    _encoder().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob('model-*'))) == 2


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match='is a file'):
        _encoder().save_pretrained(tmp_path / 'file')


def test_the_hub_is_called(tmp_path, monkeypatch):
    hub = pytest.importorskip('huggingface_hub')
    uploaded, asked = {}, {}

    def upload(repo_id, folder_path, delete_patterns):
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()}, repo=repo_id)
        return type('Commit', (), {'commit_url': 'address'})

    def download(repo_id, revision, allow_patterns):
        asked.update(repo=repo_id, revision=revision)
        for name in uploaded.keys() - {'repo'}:
            (tmp_path / name).write_bytes(uploaded[name])
        return str(tmp_path)

    monkeypatch.setattr(hub, 'create_repo', lambda repo, private, exist_ok: None)
    monkeypatch.setattr(hub, 'upload_folder', upload)
    monkeypatch.setattr(hub, 'snapshot_download', download)
    net = _encoder()
    assert net.push_to_hub('owner/name', {'classes': ['a']}) == 'address'
    assert uploaded['repo'] == 'owner/name'
    assert _equal(checkpoints.load('hf://owner/name@v1'), net)
    assert asked == {'repo': 'owner/name', 'revision': 'v1'}


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(ImportError, match=r"pip install 'mdnc\[export\]'"):
        _encoder().save_pretrained(tmp_path)


def test_a_checkpoint_of_mdnc_fit_loads_bare(tmp_path):
    net = _encoder(out_length=None)
    path = tmp_path / 'last.ckpt'
    _archive(path, net, prefix='network.', extra={'loss.weight': torch.ones(2)})
    for again in (resnet.EncoderNet2d.from_pretrained(path), checkpoints.load(path)):
        assert _equal(again, net)
        assert again.origin.data == {'classes': ['a', 'b']}
        assert again.origin.difference is None
    _archive(path, net, prefix='network._orig_mod.')
    assert _equal(checkpoints.load(path), net)


def _archive(path, net, prefix, extra=None, **more):
    from mdnc._archive import save_archive

    state = {prefix + key: value for key, value in net.state_dict().items()}
    network = {'name': type(net).__name__, 'arguments': net.config} | more
    settings = {'network': network, 'data': {'classes': ['a', 'b']}}
    save_archive({'state_dict': state | (extra or {}), 'hyper_parameters': settings, 'epoch': 3}, path)


def test_other_training_checkpoints_are_refused(tmp_path):
    net, path = _encoder(), tmp_path / 'last.ckpt'
    torch.save(net.state_dict(), path)
    with pytest.raises(ValueError, match=r'does not say which network it holds .* use mdnc\.rebuild'):
        checkpoints.load(path)
    _archive(path, net, prefix='other.')
    with pytest.raises(ValueError, match=r"no tensor of it is under 'network\.'"):
        checkpoints.load(path)
    _archive(path, net, prefix='network.', arguments=net.config | {'colour': 1})
    with pytest.raises(ValueError, match=r"unknown arguments \['colour'\], missing arguments \[\]"):
        checkpoints.load(path)
    _archive(path, net, prefix='network.', arguments={'channel': 4})
    with pytest.raises(ValueError, match=r"missing arguments \['layers'\]"):
        checkpoints.load(path)
    _archive(path, net, prefix='network.', arguments=net.config | {'kernel_size': 4})
    with pytest.raises(ValueError, match=r'describes a network that cannot be built: .*kernel_size'):
        checkpoints.load(path)
    _archive(path, net, prefix='network.', name=['EncoderNet2d'])
    with pytest.raises(ValueError, match='not named by a str'):
        checkpoints.load(path)


@pytest.mark.slow
def test_a_run_of_mdnc_fit_loads_bare(tmp_path):
    # Half a minute: an epoch of a recipe that ships with mdnc.
    pytest.importorskip('lightning')
    run = tmp_path / 'run'
    words = ['--config', 'digits', '--trainer.max_epochs', '1', '--trainer.default_root_dir', str(run)]
    subprocess.run([sys.executable, '-m', 'mdnc.cli', 'fit', *words], check=True, stdout=subprocess.DEVNULL)
    net = checkpoints.load(run)
    assert type(net) is resnet.EncoderNet2d
    assert len(net.origin.data['classes']) == 10
    saved = torch.load(run / 'checkpoints' / 'best.ckpt', weights_only=True)['state_dict']
    assert all(torch.equal(value, saved[f'network.{key}']) for key, value in net.state_dict().items())


KILLED = """
import itertools, sys, torch, mdnc
nets = [mdnc.modules.resnet.EncoderNet1d(64, [2, 2]) for _ in range(2)]
for net, value in zip(nets, (1.0, 2.0)):
    torch.nn.init.constant_(net.fc.bias, value)
for net in itertools.cycle(nets):
    net.save_pretrained(sys.argv[1])
    print('saved', flush=True)
"""


@pytest.mark.slow
def test_killed_processes_leave_a_whole_network(tmp_path):
    # About a minute: a dozen processes, each killed at another point of a save.
    for kill in range(12):
        saver = subprocess.Popen([sys.executable, '-c', KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert saver.stdout.readline()
        time.sleep(0.013 * kill)
        saver.kill()
        saver.communicate()
        net = checkpoints.load(tmp_path)
        assert net.fc.bias.unique().tolist() in ([1.0], [2.0])


def test_the_golden_size_is_one_that_every_network_takes():
    for kernel in ((3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (3, 3, 1)):
        for layers in ([1, 1], [1] * 6):
            with torch.device('meta'):
                net = resnet.UNet3d(1, layers, kernel_size=kernel)
            net.stage_sizes(_pretrained._golden_size(net.plan))


def test_the_version_is_noted(tmp_path):
    _encoder().save_pretrained(tmp_path)
    config = json.loads((tmp_path / _bundle.CONFIG).read_text(encoding='utf-8'))
    assert config['saved_by'] == {'mdnc': mdnc.__version__, 'torch': torch.__version__}
