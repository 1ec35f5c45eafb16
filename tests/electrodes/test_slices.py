import numpy as np
import pytest

from dlvolt.electrodes import slices


@pytest.mark.parametrize("most", [1, 100, 10_000])
def test_pieces_are_joined_by_place_with_silence_between_and_are_used_up(most, monkeypatch):
    monkeypatch.setattr(slices, "CHUNK_SIZE", most)
    rng = np.random.default_rng(0)
    pieces = [rng.normal(size=(length, 2)).astype("float16") for length in (10, 20, 15, 12, 9)]
    given, places = list(pieces), np.array([1, 0, 1, 1, 0])
    chunks, of_chunks = slices.join(given, places, gap=4)
    assert given == []
    expected = {0: [1, 4], 1: [0, 2, 3]}
    for place, members in expected.items():
        there = [chunk.numpy() for chunk, of_chunk in zip(chunks, of_chunks, strict=True) if of_chunk == place]
        if most == 10_000:
            gap = np.zeros((2, 4))
            whole = [part for index in members for part in (pieces[index].T, gap)][:-1]
            assert len(there) == 1
            np.testing.assert_array_equal(there[0], np.concatenate(whole, axis=1))
        else:
            assert sum(chunk.shape[1] for chunk in there) >= sum(len(pieces[index]) for index in members)
        assert most > 1 or len(there) == len(members)
    assert of_chunks == sorted(of_chunks)
