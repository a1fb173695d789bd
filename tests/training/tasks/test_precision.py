"""The network may be in half precision; data, scales, losses and figures are in single."""

import numpy as np
import pytest
import torch
from torch import nn

from mdnc.training import ArrayData, Classification, Reconstruction, Regression, Segmentation, make_trainer

RNG = np.random.default_rng(0)
# A pressure: bfloat16 knows 1012 and 1016, nothing between.
X = (1013.25 + RNG.normal(size=(40, 1, 32))).astype('f4')
ENCODER = {'name': 'EncoderNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'out_length': 2}}
UNET = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'block': 'plain', 'out_planes': 2}}
AE = {'name': 'UNet1d', 'arguments': {'channel': 4, 'layers': [1, 1], 'block': 'plain'}}


def runner(folder, precision):
    return make_trainer(folder, max_epochs=1, accelerator='cpu', enable_progress_bar=False, precision=precision)


def weighted():
    return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.1]), reduction='none')


MAKE = {
    'classes': lambda: (Classification(ENCODER, class_weights=[1.0, 3.1]), {'targets': np.arange(40) % 2}),
    'own loss': lambda: (Classification(ENCODER, loss=weighted()), {'targets': np.arange(40) % 2}),
    'quantities': lambda: (Regression(ENCODER), {'targets': 1e5 + X[:, 0, :2]}),
    'masks': lambda: (Segmentation(UNET), {'targets': (X[:, 0] > 1013.25).astype(int), 'patch': [16]}),
    'denoised': lambda: (Reconstruction(AE, residual=True), {'corruption': 0.5}),
}


@pytest.mark.parametrize(
    ('case', 'precision'),
    [
        *((case, 'bf16-true') for case in MAKE),
        ('masks', 'bf16-mixed'),
        ('own loss', '64-true'),
        ('denoised', '64-true'),
    ],
)
def test_every_task_trains_tests_and_predicts(case, precision, tmp_path):
    task, options = MAKE[case]()
    data = ArrayData(X, batch_size=8, **options)
    inputs = []
    task.network.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    trainer = runner(tmp_path, precision)
    trainer.fit(task, data)
    figures = trainer.test(task, data, verbose=False)[0]
    assert all(np.isfinite(value) for value in figures.values())
    [part] = {str(parameter.dtype) for parameter in task.network.parameters()}
    assert part == {'bf16-true': 'torch.bfloat16', 'bf16-mixed': 'torch.float32', '64-true': 'torch.float64'}[precision]
    spread = inputs[-1].float()
    assert 0.5 < spread.std() < 2, 'the mean was taken away before the digits were'
    answer = torch.cat(trainer.predict(task, data))
    assert answer.dtype in (torch.float32, torch.float64, torch.uint8)
    if case == 'denoised':
        assert (answer.float() - 1013.25).abs().mean() < 2
        assert len(answer.float().unique()) > 50
    if case == 'classes':
        torch.testing.assert_close(task._weights.beside(torch.zeros(1)), torch.tensor([1.0, 3.1]))


def test_float16_predicts_and_tests_but_adamw_does_not_train_in_it(tmp_path):
    task, options = MAKE['classes']()
    data = ArrayData(X, **options)
    with pytest.raises(ValueError, match=r'precision=16-true: .* --trainer\.precision bf16-mixed or bf16-true'):
        runner(tmp_path, '16-true').fit(task, data)
    assert 0 <= runner(tmp_path, '16-true').test(task, data, verbose=False)[0]['test/accuracy'] <= 1
    task = Classification(ENCODER, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    trainer = runner(tmp_path, '16-true')
    trainer.fit(task, data)
    assert all(parameter.isfinite().all() for parameter in task.network.parameters())


def test_tiles_of_a_network_in_float16_are_no_nan():
    net = {'name': 'UNet2d', 'arguments': {'channel': 2, 'layers': [1, 1], 'block': 'plain', 'out_planes': 2}}
    task = Segmentation(net).eval()
    task.learn({'patch': [512, 512], 'overlap': 0.25, 'normalisation': None, 'classes': None})
    image = torch.randn(1, 1, 520, 520)
    with torch.no_grad(), torch.autocast('cpu', torch.float16):
        assert task(image).isfinite().all()
