"""Ctrl-C ends the process at once, with one line, whatever is being computed."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CLEANING_S = 1.0  # at most for the removal of temporary folders
EXIT_CODE = 130  # 128 + SIGINT, as shells have it


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the process in one line on Ctrl-C.

    No exception is raised: thread pools finish all their work before they pass one on, compiled loops pass none on, and
    callbacks print it and go on. Instead a thread waits for the signal, has temporary folders removed and ends the
    process with code 130. What is being written is in such folders until it is whole.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    wakes = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGINT, handler)
        writing.close()


def _wait(reading: socket.socket) -> None:
    """Wait for the signal, or for the end of the work."""
    with reading:
        while caught := reading.recv(1):
            if caught == bytes([signal.SIGINT]):
                _stop()


def _stop() -> None:
    """Print that the process was stopped, remove temporary folders and end it."""
    print("\ndlvolt: stopped by Ctrl-C; what was there before is whole", file=sys.__stderr__, flush=True)
    silent = os.open(os.devnull, os.O_WRONLY)  # the work goes on until the process ends, and would print errors
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    cleaning = threading.Thread(target=atexit._run_exitfuncs, daemon=True)  # temporary folders remove themselves here
    cleaning.start()
    cleaning.join(CLEANING_S)
    os._exit(EXIT_CODE)
