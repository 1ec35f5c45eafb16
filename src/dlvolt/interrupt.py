"""Ctrl-C: one line, within two seconds, whatever is being computed."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

GRACE_S = 1.5  # for the parts that clean up after themselves
EXIT_CODE = 130  # 128 + SIGINT, as shells have it


@contextmanager
def in_one_line() -> Iterator[None]:
    """End the process in one line on Ctrl-C.

    Pools of threads wait for all they were given before they let an exception through, and compiled loops let none
    through at all. So a thread watches: where the exception did not end the process within a moment, it removes
    temporary folders and ends it.

    Raises
    ------
    SystemExit
        With code 130.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        _say()
        sys.exit(EXIT_CODE)
    finally:
        signal.set_wakeup_fd(before)
        writing.close()


def _watch(reading: socket.socket) -> None:
    """Wait for the signal, or for the end."""
    while caught := reading.recv(1):
        if caught == bytes([signal.SIGINT]):
            time.sleep(GRACE_S)
            if _is_open(reading):
                _say()
                atexit._run_exitfuncs()  # temporary folders remove themselves here
                os._exit(EXIT_CODE)


def _is_open(reading: socket.socket) -> bool:
    """Whether the other end is, that is, whether the work goes on."""
    reading.setblocking(False)
    try:
        return reading.recv(1) != b""
    except BlockingIOError:
        return True


def _say() -> None:
    sys.stderr.write("\ndlvolt: stopped by Ctrl-C; what was there before is whole\n")
    sys.stderr.flush()
