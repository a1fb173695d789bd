"""Archives: exactly what was written, or a refusal that says why."""

import random

import pytest
import torch

from mdnc._archive import DamagedFileError, load_archive, save_archive


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / 'values.ckpt'
    save_archive({'weights': torch.arange(5000.0), 'names': ('a', 1, None)}, path)
    return path


def test_values_come_back_and_torch_reads_the_file_too(archive):
    for value in (load_archive(archive), torch.load(archive, weights_only=True)):
        assert torch.equal(value['weights'], torch.arange(5000.0))
        assert value['names'] == ('a', 1, None)


def test_any_flipped_bit_is_refused(archive):
    whole = archive.read_bytes()
    chance = random.Random(0)
    places = [*range(40), *range(len(whole) - 100, len(whole)), *(chance.randrange(len(whole)) for _ in range(200))]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << chance.randrange(8)
        archive.write_bytes(data)
        with pytest.raises(DamagedFileError, match='damaged'):
            load_archive(archive)


def test_any_cut_is_refused_but_the_one_that_only_loses_the_sum(archive):
    whole = archive.read_bytes()
    contents = len(whole) - 44  # mark and sum
    for length in [1, *(len(whole) * part // 16 for part in range(1, 16)), *range(contents - 30, len(whole))]:
        archive.write_bytes(whole[:length])
        if length == contents:
            load_archive(archive)
            continue
        with pytest.raises(DamagedFileError, match='damaged'):
            load_archive(archive)
    archive.write_bytes(b'')
    with pytest.raises(DamagedFileError, match='is empty'):
        load_archive(archive)


def test_plain_torch_files_are_read_and_their_inner_sums_checked(tmp_path):
    path = tmp_path / 'plain.pt'
    torch.save(torch.arange(1000.0), path)
    assert load_archive(path)[3] == 3
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match='not what was written'):
        load_archive(path)


def test_code_is_never_run(tmp_path):
    torch.save(pytest.raises, tmp_path / 'code.pt')
    with pytest.raises(DamagedFileError, match=r'more than plain values and tensors.*: it names _pytest') as caught:
        load_archive(tmp_path / 'code.pt')
    assert 'weights_only' not in str(caught.value)  # torch's advice is to have the code run
