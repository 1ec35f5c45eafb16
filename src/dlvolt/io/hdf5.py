"""HDF5 files that the HDF5 library itself does not come back from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LIMIT_S = 5
LOOK = f"""
import contextlib
import signal
import sys
if hasattr(signal, "alarm"):
    signal.alarm({LIMIT_S + 1})  # should the one who waits be killed
import h5py

def look(item):
    with contextlib.suppress(Exception):  # which is for the reader to explain
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


def check_hdf5(path: Path, argument: str = "source") -> None:
    """Read all attributes and the first value of all datasets of an HDF5 file in a process of its own.

    On some damaged ones the library loops for ever, holding Python's lock, or crashes. Nothing within the process
    can stop that. It takes about a quarter of a second.

    Parameters
    ----------
    path : Path
        An HDF5 file.
    argument : str, default: "source"
        Of the caller, which is to be named.

    Raises
    ------
    ValueError
        If the process does not come to an end, or crashes. Exceptions are left to the reader to raise and to explain.
    """
    environment = os.environ | {"DLVOLT_AUTOLOAD": "0"}  # it needs nothing of ours
    command = [sys.executable, "-c", LOOK, str(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        end = "hangs"
    else:
        if done.returncode in (0, RAISED):
            return
        end = "crashes"
    raise ValueError(f"{argument}: {path} is damaged: the HDF5 library {end} on its attributes or values.")
