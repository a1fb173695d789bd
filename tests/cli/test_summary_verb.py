"""``mdnc summary`` and networks from the command line."""

import inspect
from pathlib import Path

import pytest

from mdnc.cli import main
from mdnc.cli.networks import build, network_parser, refusals, value
from mdnc.modules import resnet

GOLDEN = Path(__file__).parents[1] / 'golden'
SEED = ['EncoderNet2d', '--channel', '64', '--layers', '[2,2,2,2,2]', '--in_planes', '3', '--input_size', '[3,64,63]']
SMALL = ['EncoderNet2d', '--channel', '4', '--layers', '[1,1]', '--input_size', '[1,9,8]']
# Enough to build each network; the others have defaults.
NEEDED = {'channel': '4', 'layers': '(1, 1)', 'out_size': '19', 'in_planes': '2', 'out_planes': '3'}


def parse(*argv):
    return network_parser('mdnc test', 'Test.', lambda parser: None).parse_args(argv)


def run(argv):
    return main(['summary', *argv])


def help_text(capsys, *argv):
    with pytest.raises(SystemExit) as exit_info:
        run([*argv, '--help'])
    assert exit_info.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(('out_length', 'golden'), [('32', 'out32'), ('null', 'outnone')])
def test_the_documented_tables(capsys, out_length, golden):
    assert run([*SEED, '--out_length', out_length]) == 0
    _, table = (GOLDEN / f'encodernet2d_{golden}.txt').read_text().split('\n', 1)
    assert capsys.readouterr().out == table


def test_options_of_the_table(capsys):
    assert run([*SMALL, '--batch_size', '5', '--device', 'cpu', '--dtypes', 'float32']) == 0
    assert '[5, 4, 9, 8]' in capsys.readouterr().out
    assert run(['decnet13', '--out_size', '64', '--in_length', '7']) == 0  # a decoder knows its input size
    assert 'Input size (MB): 0.00' in capsys.readouterr().out


@pytest.mark.parametrize('name', resnet.__all__)
def test_every_public_network_is_built_as_asked(name, monkeypatch):
    seen = {}
    make = getattr(resnet, name)
    monkeypatch.setattr(resnet, name, stand_in := (lambda **given: seen.update(given)))
    stand_in.__signature__, stand_in.__doc__ = inspect.signature(make), make.__doc__
    required = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    build(parse(name, *[text for key in required for text in (f'--{key}', NEEDED[key])]))
    # Where and as what it is built is the command's own to say.
    known = inspect.signature(make).parameters
    defaults = {name: p.default for name, p in known.items() if name not in ('device', 'dtype')}
    assert seen == defaults | {key: value(NEEDED[key]) for key in required}


def test_arguments_reach_the_network():
    net = build(
        parse(
            'decnet13', '--out_size', '(65, 64, 66)', '--order', '3', '--kernel_size', '[3,1,3]', '--in_length', 'None'
        )
    )
    assert type(net) is resnet.DecoderNet3d
    assert net.config['kernel_size'] == (3, 1, 3)
    assert net.config['in_length'] is None


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('64', 64), ('-1', -1), ('1.5', 1.5), ('null', None), ('None', None), ('true', True), ('False', False),
        ('[2,2]', [2, 2]), ('(3, 1)', (3, 1)), ('2,2', (2, 2)), ('plain', 'plain'), ("'plain'", 'plain'), ('', ''),
        ('[2]*5', '[2]*5'), ('__import__("os")', '__import__("os")'), ('[' * 5000, '[' * 5000),
    ],
)  # fmt: skip
def test_values(text, expected):
    got = value(text)
    assert got == expected
    assert type(got) is type(expected)


def test_help_lists_every_network_and_every_argument(capsys):
    text = help_text(capsys)
    assert all(f'\n    {name}' in text for name in resnet.__all__)
    text = help_text(capsys, 'unet16')
    assert 'Number of spatial axes' in text
    assert 'Channels of the input, at least 1. (default: 1)' in ' '.join(text.split())


@pytest.mark.parametrize('name', resnet.__all__)
def test_help_has_words_for_every_argument(capsys, name):
    arguments = ' '.join(help_text(capsys, name).split()).partition('arguments of the network:')[2]
    for argument in inspect.signature(getattr(resnet, name)).parameters.keys() - {'device', 'dtype'}:
        words = arguments.partition(f'--{argument} VALUE ')[2]
        assert words
        assert not words.startswith('('), argument


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        ([], 'the following arguments are required: NETWORK'),
        (['EncoderNt2d'], "invalid choice: 'EncoderNt2d': did you mean EncoderNet2d?"),
        (['runs/none'], "runs/none is neither a file nor a network: argument NETWORK: invalid choice: 'runs/none'"),
        (['EncoderNet2d', '--channel', '4'], 'required: --layers'),
        (SMALL[:-2], 'EncoderNet2d: --input_size is needed'),
        ([*SMALL, '--channel', '0'], 'channel=0 must be an int of at least 1'),
        ([*SMALL, '--layers', '[2]*5'], "layers='[2]*5' must be a sequence"),
        ([*SMALL, '--block', 'Plain'], "block='Plain' must be one of 'plain', 'bottleneck'"),
        ([*SMALL, '--chan', '4'], 'unrecognized arguments: --chan: did you mean --channel?'),
        (['EncoderNet2d', '--laiers', '[1,1]'], 'unrecognized arguments: --laiers: did you mean --layers?'),
        ([*SMALL, '--input_size', '[1,2,2]'], 'input size (2, 2) is too small'),
        ([*SMALL, '--input_size', '[3,9,9]'], '(B, 1, L1, L2) is needed'),
        ([*SMALL, '--input_size', '9'], 'input_size=9 must be one size'),
        ([*SMALL, '--batch_size', '0'], 'batch_size=0 must be at least 1'),
        ([*SMALL, '--device', 'gpu'], "device='gpu' cannot be used here"),
        ([*SMALL, '--dtypes', 'flot'], "dtypes holds 'flot'"),
    ],
)
def test_errors_are_one_line(capsys, argv, words):
    assert run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert words in err
    assert err.startswith('mdnc summary: error: ')
    assert err.count('\n') == 1


def test_a_bug_is_not_taken_for_a_refusal():
    with pytest.raises(KeyError), refusals():
        raise KeyError('bug')


def test_a_network_too_large_to_count_is_no_traceback(capsys):
    for channel in (10**12, 10**30):
        assert run([*SMALL, '--channel', str(channel)]) == 2
        assert 'EncoderNet2d: one of its weights would be too large for any memory' in capsys.readouterr().err
