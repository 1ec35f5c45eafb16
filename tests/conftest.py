import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout, or the one named by DLVOLT_SHARED_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DLVOLT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real recordings in {folder}; set DLVOLT_SHARED_DATA to their folder")
    return folder
