"""Sorters side by side on one recording: how right each is, how long it takes, and how much memory.

``python -m dlvolt.evaluation.sorters JOB`` is how `compare_sorters` runs each of them, in a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from spikeinterface.comparison import compare_multiple_sorters
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting
from spikeinterface.core.job_tools import fix_job_kwargs, job_keys
from spikeinterface.sorters import read_sorter_folder
from spikeinterface.sorters.sorterlist import sorter_dict

from dlvolt.evaluation.comparison import compare_to_ground_truth

SORTERS = ("dlvolt", "lupin", "tridesclous2", "spykingcircus2", "mountainsort5", "kilosort4")
TOLERANCE_MS = 0.4  # SpikeInterface's, for electrodes
WELL_DETECTED = 0.8  # SpikeInterface's accuracy from which on a unit counts as well detected
WATCH_S = 0.2  # time between two looks at the memory: short enough for seconds of work, too long to slow it down
MAX_ERROR = 300  # length of an error in characters
COMMAND = (sys.executable, "-m", "dlvolt.evaluation.sorters")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def compare_sorters(
    recording: BaseRecording,
    sorters: Sequence[str] | None = None,
    truth: BaseSorting | None = None,
    *,
    exhaustive_gt: bool = True,
    sorter_params: Mapping[str, Mapping[str, Any]] | None = None,
    job_kwargs: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    verbose: bool = False,
) -> pd.DataFrame:
    """Run sorters on a recording, one after the other, and compare what they find.

    Each runs in a process of its own, so that none inherits memory, threads or compiled code from another, and one that
    crashes takes none with it. One that fails, or is not installed, is a row with its ``error``.

    Parameters
    ----------
    recording : BaseRecording
        As for SpikeInterface's ``run_sorter``. Save a lazy one first, or each sorter's time includes its computation.
    sorters : sequence of str, optional
        SpikeInterface's names; by default those installed of dlvolt, lupin, tridesclous2, spykingcircus2,
        mountainsort5 and kilosort4.
    truth : BaseSorting, optional
        The true spikes; without them, sorters are compared with each other, see `score_sortings`.
    exhaustive_gt : bool, default: True
        Whether the truth has all units there are, as it has in simulations. If not, units beyond it are no mistake.
    sorter_params : dict of dict, optional
        Parameters of sorters, by the sorter's name; the others are the sorter's defaults.
    job_kwargs : dict, optional
        SpikeInterface's ``job_kwargs``, for every sorter; by default the global ones. ``n_jobs`` also limits the
        threads that libraries may start in a process.
    folder : path, optional
        A new folder to keep what the sorters write, ``<sorter>`` being SpikeInterface's sorter folder and
        ``<sorter>.log`` what it printed; and the recording, if that is only in memory. By default nothing is kept.
    verbose : bool, default: False
        Print a line for each sorter when it is done.

    Returns
    -------
    DataFrame
        A row for each sorter: ``sorter``, its ``version``, ``seconds`` for the whole call of ``run_sorter``,
        ``realtime`` (recorded seconds per second), ``peak_memory_gb`` (10⁹ bytes in RAM, of all its processes,
        shared ones counted for each), the columns of `score_sortings`, and ``error``.

    Raises
    ------
    ValueError
        If SpikeInterface does not know a sorter, or the truth or an argument does not fit; before any work.

    See Also
    --------
    spikeinterface.benchmark.SorterStudy : many recordings and settings, with figures of every unit.
    """
    sorters = check_sorters(sorters)
    params = dict(sorter_params or {})
    if unknown := set(params) - set(sorters):
        raise ValueError(f"sorter_params: {', '.join(sorted(unknown))} is not among the sorters: {', '.join(sorters)}")
    if unknown := set(job_kwargs or {}) - set(job_keys):
        raise ValueError(f"job_kwargs: has no {', '.join(sorted(unknown))}; SpikeInterface knows {', '.join(job_keys)}")
    job_kwargs = fix_job_kwargs(dict(job_kwargs or {})) | dict(progress_bar=False)
    if truth is not None:
        check_truth(truth, recording)
    if folder is not None and Path(folder).exists():
        raise FileExistsError(f"folder: {folder} exists; give the name of a new one")

    runs, sortings = [], {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlvolt-")))
        kept = scratch / "sorted" if folder is None else Path(folder)
        kept.mkdir(parents=True)
        if not any(map(recording.check_serializability, ("json", "pickle"))):
            with warnings.catch_warnings():  # SpikeInterface cannot note where the copy comes from
                warnings.filterwarnings("ignore", message="The extractor is not serializable")
                recording = recording.save(folder=kept / "recording", verbose=False, **job_kwargs)
        recording.dump(scratch / "recording.pkl")
        for name in sorters:
            job = dict(sorter_name=name, folder=(kept / name).absolute(), **params.get(name, {}))
            run = _run_alone(job, job_kwargs, scratch, kept / f"{name}.log")
            if "error" not in run:
                sorting = read_sorter_folder(kept / name, register_recording=False)
                sortings[name] = NumpySorting.from_sorting(sorting)  # in memory, as the folder may be deleted
                run["realtime"] = recording.get_total_duration() / run["seconds"]
            if folder is None:
                shutil.rmtree(kept / name, ignore_errors=True)  # some sorters leave a copy of the recording
            if verbose:
                done = run["error"] if "error" in run else f"{run['seconds']:.1f} s"
                print(f"dlvolt: {name}: {done}", flush=True)
            runs.append(dict(sorter=name) | run)
    measured = pd.DataFrame(runs, columns=["sorter", "version", "seconds", "realtime", "peak_memory_gb", "error"])
    scores = score_sortings(sortings, truth, exhaustive_gt=exhaustive_gt)
    table = measured.join(scores, on="sorter")
    return table[[*table.columns.drop("error"), "error"]]


def score_sortings(
    sortings: Mapping[str, BaseSorting], truth: BaseSorting | None = None, *, exhaustive_gt: bool = True
) -> pd.DataFrame:
    """Compare sortings of one recording with the truth, or with each other.

    Spikes within 0.4 ms are the same, as in SpikeInterface.

    Parameters
    ----------
    sortings : dict of BaseSorting
        The sortings, by the names that the table will have for them.
    truth : BaseSorting, optional
        The true spikes; units without any do not count.
    exhaustive_gt : bool, default: True
        Whether the truth has all units that there are.

    Returns
    -------
    DataFrame
        A row for each sorting, its name in the index, with its ``units`` and ``spikes``.

        With the truth: ``true_units``; ``accuracy``, ``precision`` and ``recall``, means over the true units, of which
        those without a match count 0; the number of units ``well_detected`` (accuracy of 0.8 or more), and, if the
        truth is exhaustive, ``false_positive`` (like no true unit), ``redundant`` (like one that another matches
        better) and ``overmerged`` (like several).

        Without it: ``agreed_units``, how many of its units at least one other sorting has, too (agreement, hits / (hits
        + misses + false positives), of 0.5 or more); ``agreed_share``, their share of its units; and
        ``consensus_units``, how many units are in at least two sortings, the same for all.
    """
    if truth is not None:
        truth = truth.remove_empty_units()
        scores = {name: _compare_with_truth(truth, sorting, exhaustive_gt) for name, sorting in sortings.items()}
    else:
        scores = _compare_with_each_other(sortings)
    rows = {
        name: dict(units=len(sorting.unit_ids), spikes=sorting.count_total_num_spikes()) | scores[name]
        for name, sorting in sortings.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    counts = [name for name in table if name not in ("accuracy", "precision", "recall", "agreed_share")]
    return table.astype(dict.fromkeys(counts, "Int64"))  # integers that may be missing


def check_sorters(sorters: Sequence[str] | None) -> list[str]:
    """Return the names of sorters, by default those that are installed of `SORTERS`."""
    if sorters is None:
        return [name for name in SORTERS if sorter_dict[name].is_installed()]
    sorters = [sorters] if isinstance(sorters, str) else list(sorters)
    if unknown := [name for name in sorters if name not in sorter_dict]:
        known = ", ".join(sorted(sorter_dict))
        raise ValueError(f"sorters: SpikeInterface knows no {', '.join(map(repr, unknown))}; it knows {known}")
    if not sorters or len(set(sorters)) < len(sorters):
        raise ValueError(f"sorters: give one or more, each once, not {', '.join(sorters) or 'none'}")
    return sorters


def check_truth(truth: BaseSorting, recording: BaseRecording) -> None:
    """Check that true spikes can be those of a recording."""
    if truth.get_num_segments() != recording.get_num_segments():
        raise ValueError(
            f"truth: has {truth.get_num_segments()} segments, the recording {recording.get_num_segments()}; they must "
            "belong together"
        )
    if truth.count_total_num_spikes() == 0:
        raise ValueError("truth: there is not a single spike in it")


def _run_alone(job: dict[str, Any], job_kwargs: dict[str, Any], scratch: Path, log_file: Path) -> dict[str, Any]:
    """Run a sorter in a new process; return its version, seconds and memory, or else its error."""
    sorter = sorter_dict[job["sorter_name"]]
    if not sorter.is_installed():
        return dict(error=_one_line(f"not installed. {sorter.installation_mesg}"))
    job_file, result_file = scratch / "job.pkl", scratch / "result.json"
    job_file.write_bytes(pickle.dumps((scratch / "recording.pkl", job, job_kwargs, result_file)))
    result_file.unlink(missing_ok=True)
    environment = os.environ | dict.fromkeys(THREADS, str(job_kwargs["n_jobs"]))
    with (
        log_file.open("wb") as log,
        subprocess.Popen([*COMMAND, job_file], stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            peak_memory = _watch(process)
        finally:
            process.kill()  # if we are interrupted; it does nothing to one that has ended
    if not result_file.exists():
        printed = log_file.read_text(errors="replace").strip().splitlines()[-1:]
        return dict(error=_one_line(f"its process died with exit code {process.returncode}", *printed))
    return json.loads(result_file.read_text()) | dict(peak_memory_gb=peak_memory / 1e9)


def _watch(process: subprocess.Popen) -> int:
    """Wait until a process ends; return the most bytes of RAM that it and its children were seen to have at once."""
    parent, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        with suppress(psutil.Error):  # one of them has just ended
            family = [parent, *parent.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
        time.sleep(WATCH_S)
    return peak


def _run_job(job_file: Path) -> None:
    """Run a job that `_run_alone` has written, in the process that it starts."""
    import spikeinterface.full as si  # all of it, so that no sorter's time includes imports

    recording_file, job, job_kwargs, result_file = pickle.loads(job_file.read_bytes())
    si.set_global_job_kwargs(**job_kwargs)
    recording = si.load(recording_file)
    start = time.perf_counter()
    try:
        si.run_sorter(recording=recording, verbose=False, **job)
    except Exception as error:
        traceback.print_exc()
        result = dict(error=_essence(error))
    else:
        seconds = time.perf_counter() - start
        result = dict(version=str(sorter_dict[job["sorter_name"]].get_sorter_version()), seconds=seconds)
    result_file.write_text(json.dumps(result))


def _essence(error: Exception) -> str:
    """Return the cause of an error in one line; SpikeInterface's errors are a traceback with a hint below it."""
    *lines, hint = list(filter(str.strip, str(error).splitlines())) or [""]
    if lines and hint.startswith("Spike sorting failed"):
        return _one_line(lines[-1])
    return _one_line(*traceback.format_exception_only(error))


def _one_line(*parts: str) -> str:
    return " ".join(" ".join(parts).split())[:MAX_ERROR]


def _compare_with_truth(truth: BaseSorting, sorting: BaseSorting, exhaustive_gt: bool) -> dict[str, float]:
    beyond = ("false_positive", "redundant", "overmerged") if exhaustive_gt else ()
    scores = dict(true_units=len(truth.unit_ids), accuracy=0.0, precision=0.0, recall=0.0, well_detected=0)
    scores |= dict.fromkeys(beyond, 0)
    if len(sorting.unit_ids) == 0:  # SpikeInterface cannot compare with none
        return scores
    comparison = compare_to_ground_truth(
        truth, _numbered(sorting), tolerance_ms=TOLERANCE_MS, match="agreement", exhaustive_gt=exhaustive_gt
    )
    performance = comparison.get_performance("pooled_with_average")
    scores |= {name: float(performance[name]) for name in ("accuracy", "precision", "recall")}
    scores["well_detected"] = comparison.count_well_detected_units(WELL_DETECTED)
    return scores | {name: getattr(comparison, f"count_{name}_units")() for name in beyond}


def _compare_with_each_other(sortings: Mapping[str, BaseSorting]) -> dict[str, dict[str, float]]:
    some = {name: _numbered(sorting) for name, sorting in sortings.items() if len(sorting.unit_ids)}
    agreed = []
    if len(some) > 1:
        with redirect_stdout(None):  # SpikeInterface tells which duplicates it removes
            comparison = compare_multiple_sorters(list(some.values()), list(some), delta_time=TOLERANCE_MS, n_jobs=1)
        agreed = [unit["unit_ids"] for unit in comparison.units.values() if len(unit["unit_ids"]) > 1]
    rows = {}
    for name, sorting in sortings.items():
        units = sum(name in names for names in agreed)
        share = units / len(sorting.unit_ids) if len(sorting.unit_ids) else np.nan
        rows[name] = dict(agreed_units=units, agreed_share=share, consensus_units=len(agreed))
    return rows


def _numbered(sorting: BaseSorting) -> BaseSorting:
    """Return a sorting whose units are called 0, 1, …, as SpikeInterface compares only ids of type int and str."""
    return sorting.rename_units(np.arange(len(sorting.unit_ids)))


if __name__ == "__main__":
    _run_job(Path(sys.argv[1]))
