"""Figures as people write them."""

import pytest

from mdnc.analysis.table import bytes_text, count_text, seconds_text, table


@pytest.mark.parametrize(
    ('text', 'number', 'words'),
    [
        (bytes_text, 0, '0 B'), (bytes_text, 1023, '1023 B'), (bytes_text, 1024, '1.00 KiB'),
        (bytes_text, 2**20, '1.00 MiB'), (bytes_text, 3 * 2**60, '3072.00 PiB'),
        (count_text, 0, '0'), (count_text, 999, '999'), (count_text, 1000, '1.00 k'), (count_text, 1536, '1.54 k'),
        (count_text, 10**6, '1.00 M'), (count_text, -(10**9), '-1.00 G'), (count_text, 10**21, '1000000.00 P'),
        (seconds_text, 1.0, '1 s'), (seconds_text, 0.0015, '1.5 ms'), (seconds_text, 1e-3, '1 ms'),
        (seconds_text, 2e-6, '2 µs'), (seconds_text, 3e-8, '30 ns'), (seconds_text, 0.0, '0 ns'),
    ],
)  # fmt: skip
def test_numbers_with_their_units(text, number, words):
    assert text(number) == words


def test_columns_are_as_wide_as_their_longest_cell():
    made = table(('part', 'n'), [('a', '1'), ('long name', '10'), ('all', '11')], foot=1)
    assert made.splitlines() == [
        'part        n', '─────────────', 'a           1', 'long name  10', '─────────────', 'all        11',
    ]  # fmt: skip
