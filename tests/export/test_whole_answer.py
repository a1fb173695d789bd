"""The steps around a network that an export is asked for: mirror images, and the last step of one that has tiles."""

import json

import pytest
import torch

from mdnc import export
from mdnc.checkpoints import Answer, Ensemble
from mdnc.modules.resnet import EncoderNet1d, UNet1d, UNet2d

DATA = {
    'normalisation': {'mean': [20.0], 'std': [5.0]},
    'answer': {'output': 'probabilities', 'dense': True},
    'patch': [16, 24],
    'blend': 'gaussian',
    'mirror': [0, 1],
}


@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return UNet2d(4, [1, 1], out_planes=3).eval()


@pytest.mark.parametrize(('mirror', 'last_step'), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize('output', ['probabilities', 'classes'])
def test_a_tile_is_answered_as_predict_answers_it(net, mirror, last_step, output, tmp_path):
    data = {**DATA, 'answer': {'output': output, 'dense': True}}
    file = export.to_torch_export(Answer(net, data), tmp_path / 'net.pt2', mirror=mirror, last_step=last_step)
    x = 20 + 5 * torch.randn(2, 1, 16, 24)
    due = {**data, 'mirror': [0, 1] if mirror else []}
    due['answer'] = {'output': output if last_step else 'scores', 'dense': True}
    found = torch.export.load(file.path).module()(x)
    if found.is_floating_point():
        torch.testing.assert_close(found, Answer(net, due).predict(x), atol=1e-5, rtol=1e-4)
    else:
        assert (found != Answer(net, due).predict(x)).double().mean() < 0.01
    assert file.facts['mirror'] == ([0, 1] if mirror else [])
    assert file.facts['answer']['output'] == due['answer']['output']
    assert ('blended by' in file.facts['tiles'] or 'run_tiled' in file.facts['tiles']) != last_step
    assert file.facts['data']['blend'] == 'gaussian'
    assert file.compared[-1].shape == (1, 1, 16, 24)
    assert all(row.agrees for row in (*file.compared, *export.check(file.path, Answer(net, data))))


def test_onnx_averages_over_mirror_images(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    net = EncoderNet1d(4, [1, 1], out_length=3).eval()
    answer = Answer(net, {'answer': {'output': 'probabilities'}, 'input': [1, 33], 'mirror': [0]})
    path = export.to_onnx(answer, tmp_path / 'net.onnx', mirror=True).path
    session, x = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']), torch.randn(2, 1, 33)
    assert json.loads(session.get_modelmeta().custom_metadata_map['mdnc'])['mirror'] == [0]
    (found,) = session.run(None, {'x': x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), answer.predict(x), atol=1e-5, rtol=1e-4)


def test_a_graph_that_answers_otherwise_than_predict_is_not_written(net, tmp_path, monkeypatch):
    monkeypatch.setattr(export.writer._Request, 'predicts', lambda self, scales: Answer(net, {**DATA, 'mirror': []}))
    with pytest.raises(export.DiffersError, match='nothing was written'):
        export.to_torch_export(Answer(net, DATA), tmp_path / 'net.pt2', mirror=True, last_step=True)
    assert not list(tmp_path.iterdir())


def test_what_is_asked_for_in_vain_is_refused(net, tmp_path):
    with pytest.raises(ValueError, match='to_torch_export: mirror=True, but mdnc predict averages over no'):
        export.to_torch_export(Answer(net, {**DATA, 'mirror': []}), tmp_path / 'net.pt2', mirror=True)
    for name in ('mirror', 'last_step'):
        with pytest.raises(ValueError, match=f'to_torch_export: {name}=True is of an Answer'):
            export.to_torch_export(net, tmp_path / 'net.pt2', **{name: True})
    several = Ensemble([Answer(UNet1d(4, [1, 1]), {'answer': {'output': 'values', 'dense': True}}) for _ in range(2)])
    with pytest.raises(ValueError, match='net holds 2 networks, and a file holds one'):
        export.to_torch_export(several, tmp_path / 'net.pt2')
