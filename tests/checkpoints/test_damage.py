"""Damaged files: always a clear refusal, never code from the file, never a library's own error."""

import hashlib
import json
import pickle
import random
import shutil
import struct

import pytest
import torch

from mdnc import _archive, _bundle, checkpoints
from mdnc._archive import save_archive
from mdnc.modules import resnet


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('saved')
    resnet.EncoderNet1d(2, [1, 1]).save_pretrained(path, {'classes': ['a', 'b'], 'mean': 0.125})
    return path


def _checkpoint(path, save):
    net = resnet.EncoderNet1d(2, [1, 1])
    state = {f'network.{key}': value for key, value in net.state_dict().items()}
    network = {'name': 'EncoderNet1d', 'arguments': net.config}
    save({'state_dict': state, 'hyper_parameters': {'network': network, 'data': None}}, path)
    return net


def _refused(source, *names):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        checkpoints.load(source)
    text = str(caught.value)
    assert any(str(name) in text for name in names)
    assert len(text.split()) >= 5
    return text


def _damages(raw, flips):
    """Cuts at each 1/16, nothing, garbage, something behind, and flipped bytes at the given positions."""
    yield from (raw[: len(raw) * part // 16] for part in range(16))
    yield random.Random(0).randbytes(len(raw))
    yield b'\0' * len(raw)
    yield raw + b'\0'
    for place in flips:
        for mask in (0x01, 0xFF):
            yield raw[:place] + bytes([raw[place] ^ mask]) + raw[place + 1 :]


def _spread(raw, count):
    # All of the first and last bytes, where the formats keep their structure, and some between.
    return sorted(
        {*range(min(64, len(raw))), *range(max(0, len(raw) - 64), len(raw)), *range(0, len(raw), -(-len(raw) // count))}
    )


@pytest.mark.parametrize('part', ['config', 'model', 'golden'])
def test_damage_to_a_folder_is_refused(part, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob(f'{part}*')
    raw = path.read_bytes()
    for damaged in _damages(raw, range(len(raw)) if part == 'config' else _spread(raw, 100)):
        path.write_bytes(damaged)
        if part == 'config' and damaged == raw + b'\0':
            continue
        _refused(tmp_path, path, tmp_path)
    path.unlink()
    _refused(tmp_path, path.name)


@pytest.mark.parametrize('save', [save_archive, torch.save], ids=['ours', 'plain'])
def test_damage_to_a_training_checkpoint_is_refused_or_harmless(save, tmp_path):
    path = tmp_path / 'last.ckpt'
    net = _checkpoint(path, save)
    raw = path.read_bytes()
    for damaged in _damages(raw, _spread(raw, 150)):
        path.write_bytes(damaged)
        try:
            again = checkpoints.load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            continue
        # A plain archive has bytes that mean nothing, such as dates; ours has none.
        assert save is torch.save
        assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())


def test_missing_things_are_named(tmp_path):
    assert 'hf://owner/name' in _refused('runs/best', 'runs/best')
    _refused(tmp_path / 'none', tmp_path / 'none')
    assert 'config.json' in _refused(tmp_path, tmp_path)


class Run:
    """Unpickling one of these would leave a mark."""

    def __reduce__(self):
        return (open, ('RUN', 'w'))


def _save_sealed(value, path):
    torch.save(value, path)
    path.write_bytes(path.read_bytes() + _archive._MARK + hashlib.sha256(path.read_bytes()).digest())


@pytest.mark.parametrize('save', [_save_sealed, torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_no_code_of_a_file_is_run(save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'last.ckpt'
    save({'state_dict': {}, 'hyper_parameters': {'network': Run()}}, path)
    _refused(path, path)
    assert not (tmp_path / 'RUN').exists()


def _changed(folder, tmp_path, change, seal=True):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / 'config.json'
    config = json.loads(path.read_text(encoding='utf-8'))
    change(config)
    if seal:
        config['checksum'] = _bundle._checksum(config)
    path.write_text(json.dumps(config), encoding='utf-8')


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda config: config.update(format=2), 'has format 2, .* saved by a newer one'),
        (lambda config: config.update(colour=1), r"unknown keys \['colour'\], missing keys \[\]"),
        (lambda config: config.pop('data'), r"missing keys \['data'\]"),
        (lambda config: config.update(format='1'), 'names no format'),
    ],
)
def test_other_formats_are_named_before_anything_else(change, text, folder, tmp_path):
    _changed(folder, tmp_path, change, seal=False)
    with pytest.raises(ValueError, match=text):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda config: config['network'].update(name='os.system'), 'contains os.system, which is not part of'),
        (lambda config: config['network'].update(name='UNet1d'), r"unknown arguments \['out_length'\]"),
        (lambda config: config['network']['arguments'].update(extra=1), r"unknown arguments \['extra'\]"),
        (lambda config: config['network']['arguments'].pop('channel'), r"missing arguments \['channel'\]"),
        (lambda config: config['network']['arguments'].update(channel=3), r'netbody\.0\.weight has shape \(2, 1, 5\)'),
        (
            lambda config: config['network']['arguments'].update(channel='2'),
            'describes a network that cannot be built.* channel',
        ),
        (lambda config: config.update(network=3), 'wrong type'),
        (lambda config: config.update(data=[]), 'wrong type'),
        (lambda config: config['parts']['model'].update(sha256='../../x'), 'wrong type'),
        (lambda config: config['parts'].update(golden=config['parts']['model']), 'golden-.* is missing'),
    ],
)
def test_configurations_that_fit_no_network_are_refused(change, text, folder, tmp_path):
    _changed(folder, tmp_path, change)
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    'raw',
    [
        b'',
        b'\xff' * 8,
        struct.pack('<Q', 2**62) + b'{}',
        struct.pack('<Q', 2) + b'{}',
        struct.pack('<Q', 4) + b'null',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'.join([struct.pack('<Q', 56), b'\0' * 4]),
        b'{"a":{"dtype":"XX","shape":[1],"data_offsets":[0,4]}}'.join([struct.pack('<Q', 53), b'\0' * 4]),
    ],
)
@pytest.mark.parametrize('part', ['model', 'golden'])
def test_parts_made_by_hand_are_refused_past_their_checksum(part, raw, folder, tmp_path):
    checksum = hashlib.sha256(raw).hexdigest()
    _changed(folder, tmp_path, lambda config: config['parts'].update({part: {'bytes': len(raw), 'sha256': checksum}}))
    (tmp_path / _bundle._part_name(part, checksum)).write_bytes(raw)
    _refused(tmp_path, tmp_path)
