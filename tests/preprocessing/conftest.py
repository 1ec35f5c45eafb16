import pickle

import pytest
import spikeinterface as si


@pytest.fixture(params=["json", "pickle", "pickled object"])
def reload(request, tmp_path):
    """Writes a recording to a file and loads it, or pickles and unpickles the object."""

    def again(recording):
        if request.param == "pickled object":
            return pickle.loads(pickle.dumps(recording))
        recording.dump(tmp_path / f"dumped.{request.param}")
        return si.load(tmp_path / f"dumped.{request.param}")

    return again
