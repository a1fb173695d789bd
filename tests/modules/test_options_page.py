"""The page on networks shows every option as the record of options has it."""

from pathlib import Path

import pytest

from mdnc.modules import _options
from mdnc.modules._options import DecoderOptions, DownUpOptions, EncoderOptions, Options

PAGE = Path(__file__).parents[2] / 'docs' / 'networks.md'
SHARED = _options.record(Options).keys()


def table(kind: type) -> str:
    """The options of a kind, without those of every network, as a table of the page."""
    rows = [
        f'| `{name}` | `{option.default!r}` | {option.words.replace("``", "`")} |'
        for name, option in _options.record(kind).items()
        if kind is Options or name not in SHARED
    ]
    return '\n'.join(['| option | default | meaning |', '|---|---|---|', *rows])


@pytest.mark.parametrize('kind', [Options, EncoderOptions, DownUpOptions])
def test_page_has_every_option(kind: type):
    assert table(kind) in PAGE.read_text(encoding='utf-8'), f'docs/networks.md needs this table:\n{table(kind)}'


def test_decoders_have_no_options_of_their_own():
    assert _options.record(DecoderOptions).keys() == SHARED
