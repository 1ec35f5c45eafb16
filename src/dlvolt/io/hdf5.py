"""Damaged HDF5 files on which the HDF5 library itself hangs or crashes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import DEVNULL, TimeoutExpired, run

LIMIT_S = 5
LOOK = f"""
import contextlib
import signal
import sys
if hasattr(signal, "alarm"):
    signal.alarm({LIMIT_S + 1})  # ends this process even if its parent was killed
import h5py

def look(item):
    with contextlib.suppress(Exception):  # exceptions are for the reader to explain
        for attribute in item.attrs:
            item.attrs[attribute]
    with contextlib.suppress(Exception):
        if isinstance(item, h5py.Dataset) and item.size:
            item[(0,) * item.ndim]
    for name in item if isinstance(item, h5py.Group) else ():
        with contextlib.suppress(Exception):
            look(item[name])

with h5py.File(sys.argv[1]) as file:
    look(file)
"""
RAISED = 1  # Python's exit code after an exception


def check_hdf5(path: Path) -> None:
    """Raise a ValueError if the HDF5 library hangs or crashes on the attributes or datasets of a file.

    Nothing within the process can stop that. So another process reads all attributes and the first value of all
    datasets, in about a quarter of a second; its exceptions are ignored, as the reader raises and explains them.
    """
    command = [sys.executable, "-c", LOOK, str(path)]
    environment = os.environ | {"DLVOLT_AUTOLOAD": "0"}  # the process needs nothing of dlvolt
    try:
        done = run(
            command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=LIMIT_S, env=environment, check=False
        )
    except TimeoutExpired:
        end = "hangs"
    else:
        if done.returncode in (0, RAISED):
            return
        end = "crashes"
    raise ValueError(f"source: {path} is damaged: the HDF5 library {end} on its attributes or values.")
