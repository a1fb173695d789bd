"""Which channels stand side by side in a picture of test samples."""

import pytest
import torch

from mdnc.training.pictures import Style
from mdnc.training.tasks.examples import keep_examples


@pytest.mark.parametrize('channels', [2, 4])
def test_each_channel_stands_beside_the_input_that_it_is_added_to(channels):
    """An input may have further channels after those that are corrected."""
    given = torch.arange(channels, dtype=torch.float32)[None, :, None, None].expand(1, channels, 5, 5)
    target, output = torch.zeros(2, 1, 2, 5, 5)
    kept = []
    keep_examples(kept, {'name': ['a'], 'input': given}, target, output, Style(alike=True, channels=2))
    assert [(each.channel, each.given.shape[0], each.given.mean().item()) for each in kept] == [(0, 1, 0), (1, 1, 1)]


def test_an_input_of_another_kind_is_shown_whole():
    given, (target, output) = torch.rand(1, 4, 5, 5), torch.zeros(2, 1, 2, 5, 5)
    kept = []
    keep_examples(kept, {'name': ['a'], 'input': given}, target, output, Style(channels=2))
    assert [each.given.shape[0] for each in kept] == [4, 4]
