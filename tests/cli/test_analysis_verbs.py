"""``mdnc forecast``, ``draw`` and ``diagnose``, and the tree of ``mdnc summary``."""

import json

import numpy as np
import pytest
import torch

from mdnc.analysis import cost, describe, memory_forecast, receptive_field
from mdnc.cli import diagnose, main
from mdnc.cli.forecast import bytes_of
from mdnc.cli.networks import asked
from mdnc.modules.resnet import DecoderNet2d, UNet2d

UNET = ['UNet2d', '--channel', '4', '--layers', '[2,1]']
SIZE = ['--input_size', '[1,13,10]']


def unet():
    return UNet2d(4, [2, 1])


def refused(capsys, *argv):
    assert main([*argv]) == 2
    return capsys.readouterr().err


def test_a_forecast_has_what_was_asked_for(capsys):
    assert main(['forecast', *UNET, *SIZE, '--batch_size', '2', '--cost', '--field', '--dtype', 'bfloat16']) == 0
    expected = [
        memory_forecast(unet(), (1, 13, 10), 2, torch.bfloat16),
        cost(unet(), (1, 13, 10), 2, torch.bfloat16, training=True),
        receptive_field(unet()),
    ]
    assert capsys.readouterr().out == '\n\n'.join(map(str, expected)) + '\n'


def test_a_forecast_as_json(capsys):
    assert main(['forecast', *UNET, *SIZE, '--optimizer', 'sgd', '--budget', '1GB', '--measure', '--json']) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain['memory'] == memory_forecast(unet(), (1, 13, 10), optimizer='sgd').to_dict()
    assert plain['floors'].startswith('cpu: not below ')
    assert plain.keys() == {'memory', 'fits', 'cost', 'floors'}


def test_what_a_budget_holds(capsys):
    assert main(['forecast', *UNET, *SIZE, '--budget', '200 KiB']) == 0
    lines = capsys.readouterr().out.split('Within 200.00 KiB:\n')[1].splitlines()
    assert [line.split(':')[0].strip() for line in lines] == [
        'largest batch of this size',
        'largest size in this batch',
        'memory level for both',
    ]
    decoder = ['DecoderNet2d', '--channel', '4', '--layers', '[1,1]', '--out_size', '16']
    assert main(['forecast', *decoder, '--budget', '300']) == 0
    assert 'largest batch of this size: none; max_batch: a batch of 1 needs' in capsys.readouterr().out


def test_batches_that_are_none_are_refused(capsys, tmp_path):
    batches = {
        'empty.npy': np.zeros((0, 1, 16, 16)),
        'words.npy': np.array([['1', '2']]),
        'complex.npy': np.ones((2, 1, 16, 16), complex),
        'fields.npy': np.zeros(3, [('a', float)]),
    }
    for name, array in batches.items():
        np.save(tmp_path / name, array)
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'complex.npy').read_bytes()[:-5])
    (tmp_path / 'nothing.npy').touch()
    torch.save({'x': torch.zeros(2, 1, 16, 16)}, tmp_path / 'dictionary.pt')
    torch.save(torch.zeros(0, 1, 16, 16), tmp_path / 'empty.pt')
    for path in sorted(tmp_path.iterdir()):
        error = refused(capsys, 'diagnose', *UNET, '--batch', str(path))
        assert error.count('\n') == 1
        assert path.name in error or 'diagnose: x' in error
    for kind in ('>f8', '<i2', '?', '<u2'):  # the order of another machine, whole numbers, masks
        np.save(tmp_path / 'fine.npy', np.random.default_rng(0).normal(size=(2, 1, 64, 64)).astype(kind))
        assert main(['diagnose', *UNET, '--batch', str(tmp_path / 'fine.npy')]) in (0, 1)


def test_a_network_goes_before_a_folder_of_its_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'unet16').mkdir()
    assert main(['forecast', 'unet16', '--input_size', '[40,40]', '--dtype', 'bfloat16']) == 0


@pytest.mark.parametrize(
    ('text', 'count'), [('80GB', 80 * 10**9), ('24 GiB', 24 * 2**30), ('1e3', 1000), ('.5kb', 500), ('7', 7)]
)
def test_numbers_of_bytes(text, count):
    assert bytes_of(text) == count


@pytest.mark.parametrize('suffix', ['svg', 'png', 'pdf'])
def test_a_picture_is_drawn(capsys, tmp_path, suffix):
    target = tmp_path / f'net.{suffix}'
    assert main(['draw', *UNET, '--output', str(target), *SIZE]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert target.stat().st_size > 1000


def test_a_diagnosis_of_noise_and_of_batches(capsys, tmp_path):
    assert main(['diagnose', *UNET, '--input_size', '[4,4]']) == 1
    assert 'norms over' in capsys.readouterr().out
    np.save(tmp_path / 'batch.npy', np.random.default_rng(0).normal(size=(2, 1, 64, 64)))
    assert main(['diagnose', *UNET, '--batch', str(tmp_path / 'batch.npy')]) == 0
    assert capsys.readouterr().out.endswith('No problems were found.\n')
    torch.save(torch.randn(2, 1, 64, 64), tmp_path / 'batch.pt')
    assert main(['diagnose', *UNET, '--batch', str(tmp_path / 'batch.pt'), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['findings'] == []


def test_the_noise_of_a_diagnosis_is_always_the_same():
    seen = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        net = asked('mdnc diagnose', '', diagnose._add_options, [*UNET, '--input_size', '[9,8]'], device='meta')
        seen.append(diagnose._batch(*net))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*seen)
    assert seen[0].shape == (8, 1, 9, 8)


def test_a_file_may_stand_in_the_place_of_a_network(capsys, tmp_path):
    DecoderNet2d(4, [1, 2], out_size=64, in_length=3).save_pretrained(tmp_path)
    for verb in (['forecast', str(tmp_path)], ['draw', str(tmp_path), '--output', str(tmp_path / 'net.svg')]):
        assert main(verb) == 0
    assert 'DecoderNet2d' in capsys.readouterr().out
    assert main(['diagnose', str(tmp_path)]) in (0, 1)


def test_the_tree_of_a_summary(capsys):
    options = [*SIZE, '--depth', '1', '--columns', 'macs,output']
    assert main(['summary', *UNET, *options, '--rich']) == 0
    assert capsys.readouterr().out == f'{describe(unet(), (1, 13, 10), depth=1, columns=("macs", "output"))}\n'


@pytest.mark.parametrize(('words', 'batch'), [((), 1), (('--batch_size', '-1'), 1), (('--batch_size', '3'), 3)])
def test_the_batch_of_a_tree(words, batch, capsys):
    assert main(['summary', *UNET, *SIZE, *words, '--json']) == 0
    assert json.loads(capsys.readouterr().out) == describe(unet(), (1, 13, 10), batch).to_dict()


def test_a_summary_beside_another(capsys, tmp_path):
    assert main(['summary', *UNET, *SIZE, '--json']) == 0
    (tmp_path / 'before.json').write_text(capsys.readouterr().out, encoding='utf-8')
    assert main(['summary', 'AE2d', *UNET[1:], *SIZE, '--against', str(tmp_path / 'before.json')]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ['total', 'UNet2d', 'AE2d', 'ratio']
    (tmp_path / 'other.json').write_text('{"modules": 3}', encoding='utf-8')
    assert 'not the values of a description' in refused(
        capsys, 'summary', *UNET, *SIZE, '--against', str(tmp_path / 'other.json')
    )


@pytest.mark.parametrize(
    ('argv', 'text'),
    [
        (['forecast', *UNET], '--input_size is needed'),
        *(
            (['forecast', *UNET, *SIZE, f'--budget={amount}'], f'budget={amount!r} must be a number of bytes')
            for amount in (
                'much',
                '1e999',
                '1e400GB',
                '0',
                '0.2',
                '.',
                '1.2.3',
                '',
                '-1',
                'nan',
                'inf',
                '1ZB',
                '9' * 30,
            )
        ),
        (['forecast', *UNET, *SIZE, '--budgt', '1GB'], 'unrecognized arguments: --budgt: did you mean --budget?'),
        (['forecast', *UNET, '--input_size', '[]'], 'input_size=[] must be an int'),
        (['summary', *UNET, '--input_size', '[]'], 'UNet2d must take 0 inputs'),
        (['summary', *UNET, '--input_size', '[1,100000000000000000000,8]'], 'has more than 2^50 values'),
        (['summary', *UNET, *SIZE, '--dtypes', 'quint8'], 'dtypes holds torch.quint8, of which no input can be made'),
        (['summary', *UNET, *SIZE, '--against', 'none.json'], 'none.json: No such file or directory'),
        (['summary', *UNET, *SIZE, '--against', ''], '.: Is a directory'),
        (['diagnose', *UNET, '--batch', 'none.npy'], 'none.npy: No such file or directory'),
        (['diagnose', *UNET, '--batch', 'none.pt'], 'none.pt: No such file or directory'),
        (['diagnose', *UNET, '--batch', 'batch.csv'], '--batch batch.csv: it must be .npy, or .pt with one tensor'),
        (['draw', *UNET, '--output', 'none/net.svg'], 'none/net.svg cannot be written: there is no folder none'),
        (['draw', 'none/last.ckpt', '--output', 'net.svg'], 'none/last.ckpt is neither a file nor a network'),
        (['draw', '.', '--output', 'net.svg'], '. holds no config.json of save_pretrained'),
        (['forecast', *UNET, *SIZE, '--dtype', 'int4'], 'dtype=torch.int4 must be one of torch.float32, '),
        (['forecast', *UNET, *SIZE, '--optimizer', 'lion'], "optimizer='lion'"),
        (['draw', *UNET, '--output', 'net.gif'], "suffix='gif'"),
        (['diagnose', *UNET], '--batch or --input_size is needed'),
        (['summary', *UNET, *SIZE, '--rich', '--columns', 'flops'], "columns='flops'"),
        (['draw', 'UNet4d'], "invalid choice: 'UNet4d'"),
    ],
)
def test_refusals_are_one_line(capsys, argv, text):
    error = refused(capsys, *argv)
    assert text in error
    assert len(error.strip().splitlines()) == 1
