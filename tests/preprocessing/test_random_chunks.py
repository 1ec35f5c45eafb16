import numpy as np
import pytest
import spikeinterface as si

from dlvolt.preprocessing.random_chunks import random_chunks


@pytest.mark.parametrize("num_workers", [1, 3])
def test_chunks_are_those_of_spikeinterface_whatever_the_number_of_threads(num_workers):
    recording = si.generate_recording(num_channels=3, durations=[2.0, 3.0], seed=1)
    expected = si.get_random_data_chunks(
        recording, num_chunks_per_segment=4, chunk_size=3000, concatenated=False, seed=7
    )
    chunks = random_chunks(recording, num_chunks=8, duration_s=0.1, seed=7, num_workers=num_workers)
    np.testing.assert_array_equal(chunks, expected)


def test_chunks_are_no_longer_than_the_shortest_segment():
    recording = si.generate_recording(num_channels=2, durations=[0.1, 3.0], seed=1)
    chunks = random_chunks(recording, num_chunks=1, duration_s=1.0)
    assert [chunk.shape for chunk in chunks] == [(3000, 2), (3000, 2)]
