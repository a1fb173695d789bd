"""Arguments of `make_trainer` and its callbacks that train nothing, or fail within the run, are refused before it."""

import lightning as L
import numpy as np
import pytest

from mdnc.training import Keeper, Repeatable, make_trainer

OUT_OF_RANGE = [
    ('accumulate_grad_batches', [-1, 0, 1.5, True, '2']),
    ('max_epochs', [-2, 2.5]),
    ('min_epochs', [-1]),
    ('max_steps', [0, -2]),
    ('min_steps', [-1]),
    ('limit_train_batches', [0, 0.0, -1, 1.5, True]),
    ('limit_val_batches', [-1, 1.5]),
    ('limit_test_batches', [-1]),
    ('limit_predict_batches', [-0.5]),
    ('overfit_batches', [-1]),
    ('val_check_interval', [0, 0.0, -1, 1.5]),
    ('check_val_every_n_epoch', [0, -1]),
    ('num_sanity_val_steps', [-2]),
    ('log_every_n_steps', [-1]),
    ('gradient_clip_val', [-1, float('nan'), float('inf')]),
    ('num_nodes', [0]),
    ('reload_dataloaders_every_n_epochs', [-1]),
]


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name, values in OUT_OF_RANGE for value in values])
def test_an_option_out_of_its_range_is_refused_by_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=f'make_trainer: {name} must be .*, not {value!r}'):
        make_trainer(tmp_path, **{name: value})


def test_what_is_legal_is_taken(tmp_path):
    options = {'max_epochs': np.int64(3), 'limit_train_batches': 0.5, 'limit_val_batches': 0, 'val_check_interval': 2}
    trainer = make_trainer(tmp_path, accelerator='cpu', accumulate_grad_batches=2, gradient_clip_val=0.5, **options)
    assert (trainer.max_epochs, trainer.accumulate_grad_batches) == (3, 2)
    assert make_trainer(tmp_path, accelerator='cpu', max_epochs=-1, max_steps=5, num_sanity_val_steps=-1).max_steps == 5


@pytest.mark.parametrize(
    ('run_dir', 'options', 'kind', 'text'),
    [
        (None, {}, TypeError, 'run_dir must be the path of a folder, not None'),
        ('', {}, TypeError, "run_dir must be the path of a folder, not ''"),
        ('x', {'callbacks': L.Callback()}, TypeError, 'callbacks must be a list of Lightning callbacks'),
        ('x', {'callbacks': [3]}, TypeError, 'callbacks must be a list of Lightning callbacks'),
        ('x', {'max_epoch': 3}, TypeError, 'unknown option max_epoch; did you mean max_epochs?'),
        (
            'x',
            {'default_root_dir': 'y'},
            ValueError,
            "default_root_dir='y' cannot be set: it is set by run_dir",
        ),
        ('x', {'enable_checkpointing': False}, ValueError, 'a run needs checkpoints'),
    ],
)
def test_what_is_no_option_is_refused(run_dir, options, kind, text):
    with pytest.raises(kind, match=text.replace('?', r'\?')):
        make_trainer(run_dir, **options)


@pytest.mark.parametrize(
    'options',
    [{'every_minutes': float('nan')}, {'every_minutes': -1}, {'every_minutes': '5'}, {'keep': 1}, {'keep': 2.5}],
)
def test_when_to_save_is_a_number(options):
    with pytest.raises(
        ValueError, match='Keeper: every_minutes must be a number of at least 0 and keep a whole number'
    ):
        Keeper(**options)


@pytest.mark.parametrize('seed', [-1, 1.5, 'x', True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(
        ValueError, match=f'Repeatable: seed must be a whole number of at least 0, or None, not {seed!r}'
    ):
        Repeatable(seed)
