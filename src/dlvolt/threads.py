"""Work in threads, for what lets go of the interpreter lock: torch, scipy and numpy do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
U = TypeVar("U")


def map_in_threads(function: Callable[[T], U], arguments: Iterable[T], num_workers: int) -> list[U]:
    """Call a function in threads that do not start threads of their own.

    Parameters
    ----------
    function : callable
        Of one argument; lets go of the interpreter lock most of the time.
    arguments : iterable
        One for each call.
    num_workers : int
        Threads.

    Returns
    -------
    list
        What the calls return, in order.
    """
    # OpenMP's limit is each thread's own, so it is set in every worker; the limits outside are put back at the end.
    with threadpool_limits(1), ThreadPoolExecutor(num_workers, initializer=threadpool_limits, initargs=(1,)) as pool:
        return list(pool.map(function, arguments))
