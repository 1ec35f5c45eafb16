"""Work in threads, for what lets go of the interpreter lock: torch, scipy and numpy do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from spikeinterface.core.job_tools import fix_job_kwargs
from threadpoolctl import ThreadpoolController

T = TypeVar("T")
U = TypeVar("U")

CHUNK_KEYS = ("chunk_size", "chunk_memory", "total_memory", "chunk_duration")


def job_kwargs_for_threads(
    given: dict[str, Any] | None, verbose: bool, default_chunks: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    """Return SpikeInterface's job_kwargs for work in threads, from those that the user has given.

    If the user has not chosen the length of chunks, `default_chunks` does, given the number of threads. Progress bars
    are shown only if `verbose`.
    """
    job_kwargs = fix_job_kwargs(given)
    job_kwargs["pool_engine"] = "thread"  # torch, scipy and numpy let go of the interpreter lock
    job_kwargs["progress_bar"] = job_kwargs["progress_bar"] and verbose
    if not any(key in (given or {}) for key in CHUNK_KEYS):
        job_kwargs |= dict.fromkeys(CHUNK_KEYS) | default_chunks(job_kwargs["n_jobs"])
    return job_kwargs


def map_in_threads(function: Callable[[T], U], arguments: Iterable[T], num_workers: int) -> list[U]:
    """Return what a function returns for each argument, in order, called in threads that start none of their own."""
    limit_to_one = partial(ThreadpoolController().limit, limits=1)  # the libraries are searched for once
    # OpenMP's limit is each thread's own, so it is set in every worker; the limits outside are put back at the end.
    with limit_to_one(), ThreadPoolExecutor(num_workers, initializer=limit_to_one) as pool:
        return list(pool.map(function, arguments))
