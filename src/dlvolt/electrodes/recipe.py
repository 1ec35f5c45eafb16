"""How the sorter finds the units of a recording of electrodes: one stage after the other."""

from __future__ import annotations

from spikeinterface.core import BaseRecording, NumpySorting
from threadpoolctl import threadpool_limits

from dlvolt.electrodes import stages
from dlvolt.electrodes.slices import chunk_duration
from dlvolt.parameters import SorterParameters
from dlvolt.threads import job_kwargs_for_threads


@threadpool_limits.wrap(limits=1)  # parallel parts have workers; further threads in each would only compete
def sort_electrodes(recording: BaseRecording, p: SorterParameters, verbose: bool = False) -> NumpySorting:
    """Sort the spikes of an extracellular recording.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces of N channels with locations.
    p : SorterParameters
        Parameters of the sorter.
    verbose : bool
        Whether to print what is done, and show progress bars.

    Returns
    -------
    NumpySorting
        Units 0, 1, …, by depth, with properties ``snr``, ``amplitude`` (both in noise standard deviations),
        ``main_channel_id``, ``fdr`` (the share of spikes that are noise, see `dlvolt.electrodes.learning.Decoys`) and
        ``label`` ("good", or "mua" for units that are not a single neuron). The annotation ``set_aside`` lists the
        artefacts, in which there are no spikes: [segment, start in s, end in s, reason].
    """
    job_kwargs = job_kwargs_for_threads(
        p.job_kwargs, verbose, lambda num_workers: dict(chunk_duration=chunk_duration(recording))
    )
    say = print if verbose else lambda *_: None

    finite = stages.set_aside(recording, p, job_kwargs)
    artefacts = finite.artefacts
    for remark in stages.remarks(finite):
        say(f"dlvolt: {remark}")
    whitened = stages.preprocess(finite, p, job_kwargs["n_jobs"])
    sample = stages.take_sample(whitened, artefacts, p.learning_duration_s, job_kwargs)
    shape = stages.find_shape(whitened, sample, p)
    if shape is None:
        say("dlvolt: nothing exceeds the threshold")
        return stages.collect_nothing(whitened, artefacts, p)
    peaks = stages.detect(whitened, artefacts, shape, p, job_kwargs)
    peaks = stages.drop_noise(finite.recording, peaks, p, job_kwargs)
    say(f"dlvolt: {len(peaks.peaks)} peaks")
    drift = stages.find_drift(whitened, peaks, p)
    say(f"dlvolt: {drift.remark}")
    waveforms = stages.cluster(whitened, peaks, shape, drift, p)
    del peaks  # learning needs the memory
    say(f"dlvolt: {len(waveforms)} clusters")
    units = stages.learn(whitened, artefacts, sample, shape, waveforms, drift, p, job_kwargs)
    say(f"dlvolt: {len(units.waveforms)} templates")
    spikes = stages.deconvolve(whitened, units, drift, p, job_kwargs)
    sorting = stages.collect(whitened, artefacts, units, spikes, p)
    say(f"dlvolt: {len(sorting.unit_ids)} units that fire often enough and are not noise, of {len(units.waveforms)}")
    return sorting
