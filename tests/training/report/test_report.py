"""The report of a run says what it found, opens without a network, and is written whole or not at all."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mdnc.training import (
    ArrayData,
    Classification,
    DenseRegression,
    Reconstruction,
    Regression,
    Segmentation,
    Split,
    make_trainer,
    run,
)

RNG = np.random.default_rng(0)
EMPTY = {'meta', 'link', 'br', 'img', 'input', 'hr'}


def encoder(out):
    return {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': out}}


def unet(out):
    arguments = {'channel': 4, 'layers': [1, 1], 'block': 'plain', 'in_planes': 1, 'out_planes': out}
    return {'name': 'UNet2d', 'arguments': arguments}


def signals():
    x = RNG.normal(size=(60, 1, 32)) * RNG.uniform(1, 3, (60, 1, 1))
    return x.astype('f4')


def images():
    return RNG.normal(size=(16, 1, 16, 16)).astype('f4')


def classification():
    x = signals()
    return Classification(encoder(2)), ArrayData(x, (x.std((1, 2)) > 2).astype(int), classes=['<calm>', 'wild & high'])


def regression():
    x = signals()
    return Regression(encoder(2), names=['spread', 'level']), ArrayData(x, np.stack([x.std((1, 2)), x.mean((1, 2))], 1))


def segmentation():
    x = images()
    return Segmentation(unet(3)), ArrayData(x, np.digitize(x[:, 0], [-0.5, 0.5]), classes=['low', 'middle', 'high'])


def dense():
    x = images()
    return DenseRegression(unet(1)), ArrayData(x, 2 * x[:, 0] + 1)


def denoising():
    return Reconstruction(unet(1), residual=True), ArrayData(images(), corruption=0.5)


MAKERS = {each.__name__: each for each in (classification, regression, segmentation, dense, denoising)}


@pytest.fixture(scope='module', params=MAKERS)
def tested(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    task, data = MAKERS[request.param]()
    data.split = Split(0.2, 0.4)
    data.batch_size = 7
    trainer = make_trainer(folder, max_epochs=2, accelerator='cpu', enable_progress_bar=False)
    run.fit(trainer, task, data, None)
    return request.param, folder, task


class Page(HTMLParser):
    """Tags that are open, what they name, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.named, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in EMPTY:
            self.open.append(tag)
        self.named += [value for name, value in attrs if name.split(':')[-1] in ('src', 'href', 'srcset')]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_fetches_nothing(tested):
    _, folder, _ = tested
    text = (folder / 'report.html').read_text(encoding='utf-8')
    page = Page(text)
    assert page.open == []
    assert page.named, 'drawings name their own parts'
    assert [name for name in page.named if not name.startswith(('#', 'data:'))] == []
    assert re.findall(r'url\((?!#)[^)]*\)|@import|<script|//[a-z]+\.(?!w3\.org)', text) == []
    assert 'prefers-color-scheme: dark' in text and 'width=device-width' in text


def test_drawings_do_not_share_their_names(tested):
    text = (tested[1] / 'report.html').read_text(encoding='utf-8')
    drawings = re.findall(r'<svg.*?</svg>', text, re.DOTALL)
    clips = [set(re.findall(r'<clipPath id="([^"]+)"', drawing)) for drawing in drawings]
    assert sum(map(len, clips)) == len(set().union(*clips)) > 0
    assert not re.search(r'#010203|#040506|#fdfeff', text), 'every colour of ours became the page\'s'


def test_the_page_says_what_was_trained_and_found(tested):
    kind, folder, task = tested
    words = ' '.join(' '.join(Page((folder / 'report.html').read_text(encoding='utf-8')).words).split())
    found = json.loads((folder / 'test.json').read_text())
    assert type(task).__name__ in words and 'ArrayData' in words
    assert f'{found["samples"]:,} for test' in words and '2 epochs in' in words
    assert re.search(r'memory [\d.,]+ MiB forecast, [\d,.]+ MiB used', words)
    for name in found.get('classes', {}) if len(found.get('classes', {})) > 1 else ():
        assert name in words
    heads = {
        'classification': ['Which classes are taken for which', 'How far its probabilities can be believed'],
        'regression': ['Predicted and true spread', 'Agreement on level', 'limits of agreement: upper'],
        'segmentation': ['Dice score of each case', 'Dice without background', 'Dice, mean of cases'],
        'dense': ['R²'],
        'denoising': ['RMSE of the input'],
    }[kind]
    for head in [*heads, 'Worst samples', 'Course of the training', 'network.txt']:
        assert head in words, head


def test_figures_of_json_are_those_that_were_logged(tested):
    kind, folder, _ = tested
    found = json.loads((folder / 'test.json').read_text(), parse_constant=lambda word: pytest.fail(word))
    pairs = {
        'classification': ['accuracy', 'f1'],
        'segmentation': ['dice', 'dice_case', 'accuracy'],
        'dense': ['rmse', 'mae'],
        'denoising': ['rmse', 'mae'],
        'regression': [],
    }[kind]
    for name in pairs:
        assert found['figures'][name]['value'] == pytest.approx(found[f'test/{name}'], rel=1e-4)
    if kind == 'regression':
        for name in ('spread', 'level'):
            assert found['quantities'][name]['rmse']['value'] == pytest.approx(found[f'test/rmse_{name}'], rel=1e-4)


def test_samples_stand_in_a_table_in_their_order(tested):
    kind, folder, task = tested
    with (folder / 'test.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    found = json.loads((folder / 'test.json').read_text())
    assert len(rows) == found['samples'] and len({row['path'] for row in rows}) == len(rows)
    losses = [float(row['loss']) for row in rows]
    assert np.mean(losses) == pytest.approx(found['test/loss'], rel=1e-4)
    if kind == 'classification':
        right = [row['target'] == row['answer'] for row in rows]
        assert [row['correct'] == 'true' for row in rows] == right
        assert np.mean(right) == pytest.approx(found['test/accuracy'], rel=1e-6)
        assert {row['target'] for row in rows} <= {'<calm>', 'wild & high'}
        assert sum(float(rows[0][f'probability {name}']) for name in found['classes']) == pytest.approx(1, abs=1e-5)
    if kind == 'regression':
        errors = [float(row['answer level']) - float(row['target level']) for row in rows]
        assert errors == pytest.approx([float(row['error level']) for row in rows], abs=1e-5)
    worst = [each.loss for each in task._table.worst]
    assert worst == pytest.approx(sorted(losses, reverse=True)[: len(worst)], rel=1e-6)
    assert len(worst) == 6


def test_baselines_stand_beside_the_figures_of_the_run(tmp_path, capsys):
    task, data = regression()
    baselines = {'rmse': {'1-NN': 0.5, 'ridge <all>': 0.25}, 'mae': {'ridge <all>': 0.125}}
    data.baselines = baselines
    run.fit(make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False), task, data, None)
    found = json.loads((tmp_path / 'test.json').read_text())
    assert found['baselines'] == baselines
    lines = capsys.readouterr().out.splitlines()
    assert f'baselines: rmse {found["test/rmse"]:.4g} here, 1-NN 0.5, ridge <all> 0.25' in lines
    assert f'baselines: mae {found["test/mae"]:.4g} here, ridge <all> 0.125' in lines
    page = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert '1-NN 0.5, ridge &lt;all&gt; 0.25' in page


def test_a_run_without_baselines_says_nothing_of_them(tmp_path, capsys):
    run.fit(make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False), *regression(), None)
    assert 'baselines' not in json.loads((tmp_path / 'test.json').read_text())
    assert 'baselines: ' not in capsys.readouterr().out


def test_baselines_of_an_unknown_metric_stop_the_run_before_it_trains(tmp_path):
    task, data = classification()
    data.baselines = {'acuracy': {'1-NN': 0.5}}
    trainer = make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    with pytest.raises(ValueError, match="baselines of 'acuracy', but the metrics of the test are loss, accuracy"):
        run.fit(trainer, task, data, None)
    assert not (tmp_path / 'metrics.csv').exists()


def test_names_are_words_and_no_tags(tmp_path):
    task, data = classification()
    data.split = Split(0, 0.4)
    trainer = make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    run.fit(trainer, task, data, None)
    text = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert '&lt;calm&gt;' in text and '<calm>' not in text


def test_a_report_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    task, data = regression()
    trainer = make_trainer(tmp_path, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    run.fit(trainer, task, data, None)
    before = (tmp_path / 'report.html').read_bytes()
    monkeypatch.setattr('mdnc.training.report.page.whole_file', _full)
    with pytest.raises(OSError, match='full'):
        run.test(trainer, task, data, run.best_checkpoint(tmp_path))
    assert (tmp_path / 'report.html').read_bytes() == before
    assert not list(tmp_path.glob('.*part'))


def _full(path):
    raise OSError('full')
