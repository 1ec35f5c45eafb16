import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small problems only lose time to threads."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
