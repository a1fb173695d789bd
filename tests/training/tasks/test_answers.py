"""A trained network gives one answer: by `mdnc predict`, from Python, loaded, called, and as an exported file."""

import json

import numpy as np
import pytest
import torch

from mdnc import checkpoints, export
from mdnc.checkpoints import Answer
from mdnc.cli import main
from mdnc.modules import resnet
from mdnc.training import (
    ArrayData,
    Classification,
    DenseRegression,
    Reconstruction,
    Regression,
    Segmentation,
    Split,
    make_trainer,
)
from mdnc.training.prediction import PredictionWriter
from mdnc.training.tiling import run_tiled

RNG = np.random.default_rng(0)
X = (128 + 50 * RNG.normal(size=(40, 1, 64))).astype('f4')
UNET = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'block': 'plain', 'out_planes': 1}}
THREE = {**UNET, 'arguments': {**UNET['arguments'], 'out_planes': 3}}
ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 3}}
WHOLE = {
    'classes': (Classification(ENCODER), {'targets': np.array(['a', 'b', 'c'] * 14)[:40]}),
    'quantities': (Regression(ENCODER), {'targets': (1000 + 7 * X[:, 0, :3])}),
    'denoised': (Reconstruction(UNET, residual=True), {'corruption': 20.0}),
    'normalised by sample': (Classification(ENCODER), {'targets': np.arange(40) % 3, 'normalise': 'sample'}),
    'not normalised': (DenseRegression(UNET), {'targets': X[:, 0] / 100, 'normalise': False}),
}
PATCHED = {
    'masks': (Segmentation(THREE), {'targets': np.digitize(X[:, 0], [100, 150]), 'patch': [16], 'overlap': 0.5}),
    'shares': (
        Segmentation(THREE, probabilities=True),
        {'targets': np.digitize(X[:, 0], [100, 150]), 'patch': [16], 'classes': ['low', 'middle', 'high']},
    ),
    'masks by sample': (
        Segmentation(THREE),
        {'targets': np.digitize(X[:, 0], [100, 150]), 'patch': [16], 'normalise': 'sample'},
    ),
    'clipped': (DenseRegression(UNET), {'targets': X[:, 0] / 100, 'patch': [16], 'normalise': 'percentiles'}),
    'maps': (DenseRegression(UNET), {'targets': 1000 + 3 * X[:, 0], 'patch': [16]}),
    'denoised in tiles': (Reconstruction(UNET, residual=True), {'corruption': 20.0, 'patch': [16]}),
}
CASES = {**WHOLE, **PATCHED}
BY_SAMPLE = ('masks by sample',)  # in tiles


@pytest.fixture(scope='module', params=CASES)
def trained(request, tmp_path_factory):
    """The task, its checkpoint, the file of its predictions, new samples."""
    task, options = CASES[request.param]
    folder = tmp_path_factory.mktemp('run')
    torch.manual_seed(0)
    data = ArrayData(X, batch_size=8, split=Split(0.2, 0.2), **options)
    trainer = make_trainer(folder, max_epochs=1, accelerator='cpu', enable_progress_bar=False)
    trainer.fit(task, data)
    path = folder / 'last.ckpt'
    trainer.save_checkpoint(path)
    new = (128 + 50 * np.random.default_rng(1).normal(size=(5, 1, 64))).astype('f4')
    writer = PredictionWriter(folder / 'p.npz')
    trainer = make_trainer(folder, accelerator='cpu', callbacks=[writer], enable_progress_bar=False)
    given = {key: value for key, value in options.items() if key != 'corruption'}
    trainer.predict(type(task).load_from_checkpoint(path), ArrayData(X, predict=new, **given), return_predictions=False)
    found = np.load(folder / 'p.npz')['prediction']
    return request.param, task, path, found, new


def test_everyone_answers_as_predict_does(trained):
    _, task, path, found, new = trained
    task, tensor = task.eval(), torch.from_numpy(new)
    loaded, back = checkpoints.load(path), type(task).load_from_checkpoint(path)
    kind = getattr(resnet, type(task.network).__name__)
    with torch.no_grad():
        answers = {
            'called': task.predicted(task(tensor)),
            'as a whole': task.predicted(task.whole(tensor)),
            'predict': task.predict(tensor),
            'back': back.predict(tensor),
            'array': back.predict(new),
            'loaded': loaded.predict(tensor),
            'from_pretrained': kind.from_pretrained(path).predict(new),
            'module': Answer(loaded)(tensor),
        }
    assert back.training, 'a loaded task goes on training'
    for who, answer in answers.items():
        np.testing.assert_allclose(np.asarray(answer), found, rtol=1e-4, atol=1e-4, err_msg=who)


@torch.no_grad()
def test_the_exported_file_answers_as_predict_does(trained, tmp_path):
    case, task, path, found, new = trained
    answer = Answer(checkpoints.load(path))
    if case in ('denoised', 'masks'):
        file = export.to_onnx(answer, tmp_path / 'net.onnx')
    else:
        file = export.to_torch_export(answer, tmp_path / 'net.pt2')
    assert all(row.agrees for row in export.check(file.path, answer))
    run = export.formats.opened(file.path).run
    assert file.facts['answer']['residual'] == ('denoised' in case)
    tensor = torch.from_numpy(new)
    if case in WHOLE:
        assert file.facts['tiles'] is None
        np.testing.assert_allclose(run(tensor), found, rtol=1e-3, atol=1e-3)
        return
    assert 'mdnc predict runs the network over tiles of 16 ' in file.facts['tiles']
    assert file.facts['tiles'].startswith('Bring each channel of a whole sample to mean 0') == (case in BY_SAMPLE)
    if case in BY_SAMPLE:
        assert file.facts['normalisation'] is None
        tensor = (tensor - tensor.mean(2, keepdim=True)) / tensor.std(2, keepdim=True, correction=0)
    assert (1, 1, 16) in [row.shape for row in file.compared]
    overlap = CASES[case][1].get('overlap', 0.25)
    assert f'run_tiled(file, x, [16], {overlap})' in file.facts['tiles']
    blended = run_tiled(run, tensor, [16], overlap)
    if isinstance(task, Segmentation):
        assert file.facts['answer']['output'] == 'scores'
        assert 'logits' in file.facts['gives']
        blended = blended.softmax(1) if task.probabilities else blended.argmax(1)
    np.testing.assert_allclose(blended, found, rtol=1e-3, atol=1e-3)


def test_tiles_make_a_difference_here(trained):
    # Else the tests above would compare nothing.
    case, task, _, _, new = trained
    if case in PATCHED:
        tensor = torch.from_numpy(new)
        with torch.no_grad():
            assert not torch.allclose(task.train()(tensor), task.eval()(tensor), atol=1e-3)


def test_scales_are_not_given_twice(trained, tmp_path):
    answer = Answer(checkpoints.load(trained[2]))
    with pytest.raises(ValueError, match='normalisation is known to the Answer that was given; leave it out'):
        export.to_torch_export(answer, tmp_path / 'net.pt2', normalisation={'mean': [0.0], 'std': [1.0]})


@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::FutureWarning', 'ignore::UserWarning')
def test_the_commands_say_what_a_file_leaves_out(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save('x.npy', X)
    np.save('y.npy', np.digitize(X[:, 0], [100, 150]))
    recipe = {
        'model': {'class_path': 'Segmentation', 'init_args': {'network': THREE}},
        'data': {'class_path': 'ArrayData', 'init_args': {'inputs': 'x.npy', 'targets': 'y.npy', 'patch': [16]}},
        'trainer': {'accelerator': 'cpu', 'enable_progress_bar': False, 'max_epochs': 1},
    }
    (tmp_path / 'c.yaml').write_text(json.dumps(recipe))
    assert main(['fit', '--config', 'c.yaml', '--trainer.default_root_dir', 'run']) == 0
    words = ['--config', 'run/config.yaml', '--trainer.default_root_dir', 'run']
    assert main(['predict', *words, '--output', 'p.npz', '--data.predict', 'x.npy']) == 0
    np.testing.assert_array_equal(np.load('p.npz')['prediction'], checkpoints.load('run').predict(X))
    capsys.readouterr()
    assert main(['export', 'run', '--output', 'whole.pt2', '--format', 'torch', '--check', '33']) == 0
    printed = capsys.readouterr().out
    assert 'tiles    mdnc predict runs the network over tiles of 16' in printed
    assert 'gives    scores of the classes (logits)' in printed
    assert printed.count('agrees') == 5
    assert main(['export', 'run', '--output', 'bare.pt2', '--format', 'torch', '--no-normalise']) == 0
    printed = capsys.readouterr().out
    assert 'tiles' not in printed
    assert 'standard units or logits' in printed
    x = torch.randn(1, 1, 16)
    with torch.no_grad():
        bare, net = export.formats.opened(tmp_path / 'bare.pt2').run(x), checkpoints.load('run')(x)
    torch.testing.assert_close(bare, net, rtol=1e-4, atol=1e-4)


def test_an_export_of_another_shape_is_not_written(tmp_path, monkeypatch):
    opened = export.formats.TorchExport.open

    def cut(self, draft):
        file = opened(self, draft)
        return export.formats.Opened(lambda x: file.run(x)[:, :1], file.facts)

    monkeypatch.setattr(export.formats.TorchExport, 'open', cut)
    with pytest.raises(ValueError, match=r'the graph is off UNet1d by inf .* nothing was written'):
        export.to_torch_export(resnet.UNet1d(**THREE['arguments']), tmp_path / 'net.pt2')
    assert not list(tmp_path.iterdir())


def test_wrong_classes_of_an_export_are_noticed(tmp_path, monkeypatch):
    opened = export.formats.TorchExport.open

    def turned(self, draft):
        file = opened(self, draft)
        return export.formats.Opened(lambda x: 2 - file.run(x), file.facts)

    monkeypatch.setattr(export.formats.TorchExport, 'open', turned)
    answer = Answer(resnet.UNet1d(**THREE['arguments']), {'answer': {'output': 'classes', 'dense': True}})
    with pytest.raises(ValueError, match='nothing was written'):
        export.to_torch_export(answer, tmp_path / 'net.pt2')


def test_a_file_is_compared_in_the_units_that_it_takes():
    shift = {'mean': [1e4], 'std': [3.0]}
    seen = []

    class FirstSample(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    graph = export.graph.Scaled(resnet.EncoderNet1d(2, [1, 1], out_length=None), shift, None)
    export.comparison.compare(export.formats.Opened(lambda x: graph(FirstSample()(x)), {}), graph, [(1, 1, 64)])
    assert abs(float(seen[0].mean()) - 1e4) < 3
    assert 1 < float(seen[0].std()) < 6
