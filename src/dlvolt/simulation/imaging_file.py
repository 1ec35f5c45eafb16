"""A voltage-imaging session as an NWB file, with known spikes: for tests, examples and tutorials."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.file import Subject
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel
from scipy.sparse import csr_array
from spikeinterface.core import NumpySorting

from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.whole import check_parent, written_whole

from .biophysical import simulate_biophysical

EPHYS_FREQUENCY = 20_000.0  # Hz, of the electrodes that recorded the true spikes
SPIKE_COUNTS = 20.0  # height of a spike, in camera counts
SITE_PX = 48  # side of the square of the field of view that one cell, or a pair of them, has for itself
SPREAD_PX = (2.5, 4.0)  # standard deviation of a cell along each of its axes
REACH = 3.0  # a mask ends so many standard deviations from the cell's centre
PIXEL_UM = 1.0
INDICATORS = {  # excitation and emission, nm
    "positive": ("SomArchon", 637.0, 664.0),
    "negative": ("Voltron2", 561.0, 578.0),
}


class ImagingTruth(NamedTuple):
    """What is known of a simulated voltage-imaging session of N ROIs."""

    path: Path
    """The NWB file."""
    sorting: NumpySorting
    """The true spikes, one unit per ROI with the ROI's id. The sampling frequency is that of an electrode, 20 kHz, and
    sample 0 is the beginning of the first frame."""
    polarity: str
    """Polarity of the indicator: "positive" or "negative"."""
    mixing: np.ndarray
    """(N, N) float64: the part of the light of ROI j that the mask of ROI i takes up; 1 for j = i."""

    @property
    def leaks(self) -> list[tuple[int, int]]:
        """Pairs of ROI ids (from, to): the first leaks light into the second."""
        ids = self.sorting.unit_ids
        to, source = np.nonzero(self.mixing - np.diag(self.mixing.diagonal()))
        return [(ids[j].item(), ids[i].item()) for i, j in zip(to, source, strict=True)]


def write_simulated_imaging(
    path: str | Path,
    num_rois: int = 12,
    duration_s: float = 60.0,
    sampling_frequency: float = 500.0,
    snr: float = 6.0,
    *,
    polarity: str = "positive",
    crosstalk: float = 0.3,
    seed: int = 0,
    overwrite: bool = False,
) -> ImagingTruth:
    """Write a simulated voltage-imaging session as an NWB file.

    Each ROI is a neuron of `simulate_biophysical`, with a blob of pixels for a mask. Half of the ROIs lie in pairs
    whose masks overlap, so that each takes up light of the other: the trace of an ROI is the sum, weighted by its mask,
    of the light that all cells send to its pixels. The traces are scaled to the same noise, so a spike that leaks is
    `crosstalk` times as high as the ROI's own.

    Parameters
    ----------
    path : path
        The file to write. It appears only when it is complete.
    num_rois : int, default: 12
        Number of ROIs N. Their ids are 1 to N.
    duration_s : float, default: 60.0
        Duration of the recording, in seconds.
    sampling_frequency : float, default: 500.0
        Frames per second of the camera, in Hz.
    snr : float, default: 6.0
        Height of isolated spikes in standard deviations of the noise, before light leaks between ROIs.
    polarity : {"positive", "negative"}, default: "positive"
        Whether the indicator brightens or dims when a neuron fires.
    crosstalk : float, default: 0.3
        Part of the light of one ROI of a pair that the other one takes up; 0: no ROIs overlap.
    seed : int, default: 0
        Same seed, same session; only NWB's random object ids differ.
    overwrite : bool, default: False
        Replace `path` if it exists.

    Returns
    -------
    ImagingTruth
        The true spikes and the cross-talk.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is not set.
    """
    path = Path(path)
    if polarity not in INDICATORS:
        raise ValueError(
            f'polarity: must be "positive" or "negative", as a session has one indicator, not {polarity!r}'
        )
    if not (crosstalk == 0 or 0.05 <= crosstalk <= 0.9):
        raise ValueError(f"crosstalk: must be 0, or 0.05 to 0.9, not {crosstalk}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {path} exists; give another one, or overwrite=True to replace it.")
    check_parent(path, "path")

    traces, spike_times, _ = simulate_biophysical(
        num_rois, duration_s, sampling_frequency, snr, polarity=polarity, seed=seed
    )
    footprints, size = _footprints(num_rois, crosstalk, np.random.default_rng(seed))
    overlap = (footprints @ footprints.T).toarray()
    mixing = overlap / overlap.diagonal()[:, None]
    differences = np.abs(np.diff(traces, n=2, axis=0))
    noise = np.median(differences, axis=0) / GAUSSIAN_MAD / np.sqrt(6)  # Var(a - 2b + c) = 6 Var(a)
    counts = SPIKE_COUNTS / snr * traces / noise
    masks = [list(zip(*divmod(f.indices, size[1]), f.data, strict=True)) for f in footprints]  # x, y, weight
    session = _session(masks, (counts @ mixing.T).astype("float32"), sampling_frequency, polarity, seed)

    with written_whole(path) as written, NWBHDF5IO(str(written), "w") as io:
        io.write(session)

    samples = {i + 1: np.round(times * EPHYS_FREQUENCY).astype(int) for i, times in enumerate(spike_times)}
    return ImagingTruth(path, NumpySorting.from_unit_dict(samples, EPHYS_FREQUENCY), polarity, mixing)


def _footprints(num_rois: int, crosstalk: float, rng: np.random.Generator) -> tuple[csr_array, np.ndarray]:
    """Draw the masks of cells, (N, pixels), and the size of the field of view; pixel (x, y) is number x·height + y.

    Masks are tilted Gaussian blobs of height 1; half of the cells lie in pairs that overlap. The overlap of a blob
    exp(-rᵀAr/2) with its copy at a distance d, relative to its overlap with itself, is exp(-dᵀAd/4). The distance
    within a pair follows from that and the cross-talk.
    """
    num_pairs = num_rois // 4 if crosstalk else 0
    num_sites = num_rois - num_pairs
    across = int(np.ceil(np.sqrt(num_sites)))
    down = int(np.ceil(num_sites / across))
    size = np.array([across, down]) * SITE_PX
    window = np.stack(np.meshgrid(*[np.arange(-SITE_PX // 2, SITE_PX // 2)] * 2, indexing="ij"), axis=-1)

    cells: list[tuple[np.ndarray, np.ndarray]] = []  # centre, and A
    for site, place in enumerate(rng.permutation(across * down)[:num_sites]):
        centre = (np.array(divmod(place, down)) + 0.5) * SITE_PX + rng.uniform(-2, 2, 2)
        turn, tilt = rng.uniform(0, 2 * np.pi, 2)
        axes = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        inverse = axes @ np.diag(rng.uniform(*SPREAD_PX, 2) ** -2.0) @ axes.T
        way = np.array([np.cos(turn), np.sin(turn)])
        if site < num_pairs:
            half = way * np.sqrt(-np.log(crosstalk) / (way @ inverse @ way))
            cells += [(centre - half, inverse), (centre + half, inverse)]
        else:
            cells.append((centre, inverse))

    weights, pixels = [], []
    for centre, inverse in cells:
        around = window + np.round(centre).astype(int)  # x, y
        squared = np.einsum("xyi,ij,xyj->xy", around - centre, inverse, around - centre)
        inside = squared < REACH**2
        weights.append(np.exp(-squared[inside] / 2))
        pixels.append(around[inside] @ [size[1], 1])
    starts = np.concatenate([[0], np.cumsum([len(w) for w in weights])])
    return csr_array((np.concatenate(weights), np.concatenate(pixels), starts), shape=(num_rois, size.prod())), size


def _session(
    masks: list[list[tuple]], traces: np.ndarray, sampling_frequency: float, polarity: str, seed: int
) -> NWBFile:
    """Return the session of masks, pixels (x, y, weight) for each ROI, and traces (T, N) in camera counts."""
    start = datetime(2024, 5, 31, 14, 30, tzinfo=timezone.utc)
    nwbfile = NWBFile(
        session_description="Simulated voltage imaging of neurons of different kinds.",
        identifier=hashlib.sha256(traces.data).hexdigest()[:32],
        session_start_time=start,
        file_create_date=start,
        session_id=f"simulated-{seed}",
        experimenter=["Golgi, Camilla"],
        institution="dlvolt",
        lab="simulation",
        experiment_description="Traces of conductance-based neurons as a camera sees them, with known spikes.",
        keywords=["voltage imaging", "simulation"],
    )
    nwbfile.subject = Subject(
        subject_id="simulated-mouse", species="Mus musculus", sex="F", age="P90D", description="a simulated mouse"
    )
    indicator, excitation_nm, emission_nm = INDICATORS[polarity]
    plane = nwbfile.create_imaging_plane(
        name="ImagingPlane",
        description="hippocampal neurons under a wide-field microscope",
        device=nwbfile.create_device(name="Microscope", description="a simulated wide-field microscope with a camera"),
        optical_channel=OpticalChannel(
            name="OpticalChannel", description=f"light of {indicator}", emission_lambda=emission_nm
        ),
        excitation_lambda=excitation_nm,
        indicator=indicator,
        imaging_rate=float(sampling_frequency),
        location="CA1",
        grid_spacing=[PIXEL_UM, PIXEL_UM],
        grid_spacing_unit="micrometers",
    )
    segmentation = ImageSegmentation()
    cells = segmentation.create_plane_segmentation(
        name="PlaneSegmentation", description="simulated cells, which overlap in pairs", imaging_plane=plane
    )
    for roi_id, mask in enumerate(masks, start=1):
        cells.add_roi(id=roi_id, pixel_mask=mask)
    module = nwbfile.create_processing_module("ophys", "ROIs and their fluorescence")
    module.add(segmentation)
    fluorescence = Fluorescence()
    module.add(fluorescence)
    fluorescence.create_roi_response_series(
        name="RoiResponseSeries",
        description="mean brightness over the mask of each cell, weighted by the mask",
        data=traces,
        unit="counts",
        rois=cells.create_roi_table_region("all cells", region=list(range(len(masks)))),
        starting_time=0.0,
        rate=float(sampling_frequency),
    )
    return nwbfile
