"""Sorted units as the units table of a new NWB file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hdmf.common import DynamicTableRegion, VectorData, VectorIndex
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectrodesTable
from pynwb.misc import Units
from spikeinterface.core import BaseRecording, BaseSorting, ChannelSparsity, NumpySorting, SortingAnalyzer

from dlvolt.io.nwb_files import is_zarr
from dlvolt.io.nwb_rois import (
    UNIT_DESCRIPTIONS,
    add_rois,
    add_traces,
    check_traces,
    is_optical,
    optical_description,
    roi_columns,
)
from dlvolt.io.nwb_session import add_electrodes, carry_devices, check_session, new_file, open_source
from dlvolt.sortings import add_empty_segments, spike_properties
from dlvolt.whole import check_parent, written_whole

DESCRIPTION = "Units found by spike sorting or spike detection."
SORTED_DESCRIPTIONS = {  # of the properties that `run_sorter("dlvolt")` gives units of electrodes
    "fdr": "false-discovery rate: estimated fraction (0 to 1) of the unit's spikes which noise gives, by decoys",
    "label": "'good' for a single neuron; 'mua' for what is no single neuron, as its false-discovery rate or its "
    "contamination within the refractory period is too high",
    "snr": "largest value of the unit's template, in standard deviations of the noise",
    "amplitude": "norm of the unit's template over samples and channels, in standard deviations of the noise",
    "main_channel_id": "identifier of the channel on which the unit's template is largest",
}
WAVEFORMS = (  # column of NWB, operator of SpikeInterface's templates, description
    ("waveform_mean", "average", "mean waveform of the unit on each of its electrodes, in volts"),
    ("waveform_sd", "std", "standard deviation of the waveform on each of the unit's electrodes, in volts"),
)
METRIC_EXTENSIONS = ("quality_metrics", "template_metrics", "spiketrain_metrics")
GAP = 1.5  # frames: a longer step of the recording's clock is a gap
MAX_ELECTRODES = 8  # of a unit whose analyzer is dense


def write_nwb_units(
    sorting_or_analyzer: BaseSorting | SortingAnalyzer,
    path: str | Path,
    *,
    source: str | Path | None = None,
    traces: dict[str, BaseRecording] | None = None,
    metadata: dict[str, dict[str, Any]] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write sorted units to a new NWB file.

    Parameters
    ----------
    sorting_or_analyzer : BaseSorting or SortingAnalyzer
        The K units. A sorting gives their spike times and unit properties; an analyzer also the electrodes
        of each unit, the computed quality, template and spike train metrics and, if its ``templates`` are
        computed in µV, the waveforms. A sorting needs a registered recording (`register_recording`, done by
        `run_sorter`) for the electrodes table or the ROIs, the observation intervals and the clock of the
        recording; optical units with a `source` cannot do without.
    path : path
        The file to write. It is written beside and moved into place when complete.
    source : path, optional
        The NWB file of the recording, HDF5 or (needs the package hdmf-zarr) Zarr. Session, subject, devices,
        electrode groups and electrodes are carried over from it into the new file, for optical units also
        imaging planes and tables of ROIs; its data are not.
    traces : dict of str to BaseRecording, optional
        Traces of the ROIs to write as well, by name, e.g. ``{"delta_f_over_f": ..., "spike_probability": ...,
        "subthreshold": ...}``. They have the samples and the channel ids of the sorting's recording. They are computed
        and written chunk by chunk.
    metadata : dict, optional
        ``{"NWBFile": {...}, "Subject": {...}}``: arguments of `pynwb.NWBFile` and `pynwb.file.Subject`, which
        override what is known otherwise. Times may be ISO strings; without a UTC offset they are local. Also
        ``"ElectrodeGroup": {"location": ..., "description": ...}``, for electrodes that are not carried over from a
        `source`.
    overwrite : bool, default: False
        Replace `path` if it exists.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FileExistsError
        If `path` exists and `overwrite` is not set.
    FileNotFoundError
        If `source` or the folder of `path` does not exist.
    ValueError
        If nobody knows the session start time, that is, neither `metadata`, the `source`, nor a
        ``session_start_time`` annotation of the recording; or if the `source` or the `traces` are not those of the
        sorting's recording.

    Notes
    -----
    Spike times are in seconds on the recording's clock, so to read them back as sample indices of a recording
    which starts at ``t_start``, give it: ``read_nwb_sorting(path, t_start=recording.get_start_time())``. The
    segments of a recording share one time line in NWB: a segment which does not start after the end of the
    one before it is placed right there. Observation intervals are the segments, split where the recording's time
    vector has a step of more than 1.5 frames. What the sorter set aside as artefacts (its annotation ``set_aside``)
    is in ``invalid_times``, with its reason as tag.

    A unit property which is an array of one value for each spike of the unit, for every unit, becomes a column
    aligned with ``spike_times``.

    ``waveform_mean`` and ``waveform_sd`` are (K, D samples, N electrodes) in volts, where column n of a unit
    belongs to entry n of its ``electrodes``. Units with fewer electrodes than others have NaN in the columns
    left over. A unit's electrodes are its channels in the analyzer's sparsity; of a dense analyzer the eight
    with the largest template, or the main channel if there are no templates.

    Without a `source`, the electrodes table is made from the recording's probe; the location of an electrode
    is the recording's ``brain_area`` property, else that of ``ElectrodeGroup`` in `metadata`, else "unknown". No
    subject and no imaging plane is made up: archives ask for a subject, so give it in `metadata`.

    Units are optical where the recording (or the sorting) is annotated with ``modality="optical"``, as by
    `read_voltage_imaging`. They have no electrodes, whether there is a probe or not. Where the `source` has a
    table of ROIs (PlaneSegmentation), the column ``rois`` is the unit's row in it. The table is that of the
    series which the recording's annotation ``nwb_series`` names, or else the only one; the row is the channel
    property ``roi_row``. Without such a table, ``roi_x``, ``roi_y``, ``roi_num_pixels`` and ``roi_plane`` tell what
    the recording knows of its ROIs.

    `traces` are in the processing module "ophys", a column for each unit: RoiResponseSeries of the unit's ROIs,
    with "delta_f_over_f" and "subthreshold" in "DfOverF", "fluorescence" in "Fluorescence" and others in the
    module itself; without a table of ROIs, which RoiResponseSeries need, plain TimeSeries in the module.
    """
    path = Path(path)
    check_target(path, source, overwrite)
    if isinstance(sorting_or_analyzer, SortingAnalyzer):
        analyzer, sorting = sorting_or_analyzer, sorting_or_analyzer.sorting
        has_recording = analyzer.has_recording() or analyzer.has_temporary_recording()
        recording = analyzer.recording if has_recording else None
    else:
        analyzer, sorting = None, sorting_or_analyzer
        recording = sorting._recording  # SpikeInterface has no public way to it

    optical = is_optical(sorting, recording)
    if traces:
        check_traces(traces, sorting, recording)
    channels = recording if analyzer is None else analyzer

    with ExitStack() as stack:
        source_file = None if source is None else stack.enter_context(open_source(source)).read()
        if source_file is not None and recording is not None:
            check_session(source_file, recording)
        nwbfile = new_file(source_file, recording, metadata or {})
        if source_file is not None:
            carry_devices(source_file, nwbfile)
        electrode_rows = add_electrodes(
            nwbfile, source_file, None if optical else channels, (metadata or {}).get("ElectrodeGroup", {})
        )
        rois = add_rois(nwbfile, source_file, sorting, recording, channels) if optical else None

        time_line = _time_line(sorting, analyzer, recording)
        description, descriptions = DESCRIPTION, {}
        if optical:
            description, descriptions = optical_description(sorting), UNIT_DESCRIPTIONS
        elif "fdr" in sorting.get_property_keys():  # which only dlvolt's sorter gives
            descriptions = SORTED_DESCRIPTIONS
        if source_file is not None:
            description += f" The recording is in the NWB file '{source_file.identifier}'."
        nwbfile.units = Units(
            name="units",
            description=description,
            resolution=1 / sorting.get_sampling_frequency(),
            **_unit_columns(
                sorting,
                analyzer,
                time_line,
                nwbfile.electrodes,
                electrode_rows,
                roi_columns(rois, channels),
                descriptions,
            ),
        )
        _add_set_aside(nwbfile, sorting, time_line)
        if traces:
            assert rois is not None  # see `check_traces`
            add_traces(nwbfile, traces, time_line.all_times(), rois)

        with written_whole(path) as written, NWBHDF5IO(str(written), "w") as io:
            io.write(nwbfile)
    return path


def into_segments(units: BaseSorting, recording: BaseRecording) -> NumpySorting:
    """Cut units read from an NWB file, which has one time line, into the segments of their recording.

    Spikes outside of the segments are left out; see `write_nwb_units` for where these are on the time line.
    """
    time_line = _time_line(units, None, recording)
    rate = units.sampling_frequency
    trains = {unit: units.get_unit_spike_train_in_seconds(unit, segment_index=0) for unit in units.unit_ids}
    per_segment = []
    for segment, length in enumerate(time_line.num_samples):
        first, last = (time_line.seconds(sample, segment) for sample in (0, length - 1))
        margin = 0.5 / rate
        per_segment.append(
            {
                unit: np.rint((train[(train >= first - margin) & (train <= last + margin)] - first) * rate).astype(int)
                for unit, train in trains.items()
            }
        )
    cut = NumpySorting.from_unit_dict(per_segment, rate)
    add_empty_segments(cut, recording.get_num_segments())
    for segment in range(recording.get_num_segments()):
        cut.segments[segment]._t_start = recording.get_start_time(segment_index=segment)
    return cut


def check_target(path: Path, source: str | Path | None, overwrite: bool) -> None:
    """Raise, before any work, what `write_nwb_units` raises for a `path` or `source` that will not do."""
    if source is not None and not (Path(source).is_file() or is_zarr(Path(source))):
        raise FileNotFoundError(f"source: there is no NWB file {source}.")
    if source is not None and path.exists() and path.samefile(source):
        raise ValueError(f"path: {path} is the source, whose data would be lost; give another one.")
    if path.is_dir():
        raise IsADirectoryError(f"path: {path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {path} exists; give another one, or overwrite=True to replace it.")
    check_parent(path, "path")


def _unit_columns(
    sorting: BaseSorting,
    analyzer: SortingAnalyzer | None,
    time_line: _TimeLine,
    electrodes: ElectrodesTable | None,
    electrode_rows: np.ndarray | None,
    optical_columns: list[VectorData],
    descriptions: dict[str, str],
) -> dict[str, Any]:
    """Return the columns of the units table, and the fields that go with them, as arguments of `Units`."""
    names = [str(unit_id) for unit_id in sorting.unit_ids]
    columns = [_column("unit_name", "identifier of the unit in the sorting", names)]
    columns += _time_columns(sorting, time_line)

    waveform_fields = {}
    if analyzer is not None and electrode_rows is not None:
        unit_channels = _unit_channels(analyzer)
        columns += _ragged(
            "electrodes",
            "electrodes which see the unit",
            [electrode_rows[channels] for channels in unit_channels],
            np.empty(0, dtype=int),
            cls=DynamicTableRegion,
            table=electrodes,
        )
        if waveforms := _waveform_columns(analyzer, unit_channels):
            columns += waveforms
            waveform_fields = {"waveform_rate": float(analyzer.sampling_frequency), "waveform_unit": "volts"}

    columns += optical_columns
    columns += _spike_columns(sorting, descriptions)
    taken = {column.name for column in columns} | {column["name"] for column in Units.__columns__} | {"id"}
    for name, (description, values) in _scalars(sorting, analyzer, descriptions).items():
        if name not in taken:
            columns.append(_column(name, description, values))
    return {"id": np.arange(len(names)), "columns": columns, **waveform_fields}


def _column(name: str, description: str, values: Sequence | np.ndarray) -> VectorData:
    if len(values) == 0 and not isinstance(values, np.ndarray):
        values = np.array([], dtype="U1")
    return VectorData(name=name, description=description, data=values)


def _ragged(
    name: str, description: str, rows: list[np.ndarray], empty: np.ndarray, cls: type = VectorData, **kwargs: Any
) -> list[VectorData]:
    """Return a column of one array per unit as NWB stores it: the concatenated arrays, and where each ends.

    `empty`, an array of no rows, gives the column type and shape if there are no units.
    """
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    target = cls(name=name, description=description, data=np.concatenate([empty, *rows]), **kwargs)
    return [VectorIndex(name=f"{name}_index", data=ends, target=target), target]


@dataclass
class _TimeLine:
    """The one time line that all segments share in NWB."""

    clock: BaseRecording | BaseSorting
    shifts: list[float]  # of each segment's clock on the time line, s
    num_samples: list[int]  # of each segment; empty if not known
    intervals: np.ndarray  # (stretches, 2), start and stop of each stretch without a gap, s; empty if not known

    def seconds(self, samples: np.ndarray | int, segment: int) -> np.ndarray:
        """Return the times of samples of a segment."""
        return self.clock.sample_index_to_time(samples, segment_index=segment) + self.shifts[segment]

    def all_times(self) -> np.ndarray:
        """Return the time of each sample of all segments, shape (T,)."""
        return np.concatenate([self.seconds(np.arange(n), segment) for segment, n in enumerate(self.num_samples)])


def _time_line(sorting: BaseSorting, analyzer: SortingAnalyzer | None, recording: BaseRecording | None) -> _TimeLine:
    """Place each segment where it says that it starts, but not before the end of the one before it."""
    # An analyzer's sorting keeps the start times of the recording, but not its time vectors.
    clock = sorting if sorting.has_recording() or recording is None else recording
    samples_of = recording or analyzer
    segments = range((samples_of or sorting).get_num_segments())
    if samples_of is None:
        if len(segments) > 1 and len(sorting.unit_ids):
            raise ValueError(
                f"sorting_or_analyzer: how long its {len(segments)} segments are is not known, so their spikes "
                "cannot be put on one time line; call the sorting's register_recording(recording) first."
            )
        return _TimeLine(clock, [0.0] * len(segments), [], np.empty((0, 2)))

    shifts, intervals, end = [], [], -np.inf
    num_samples = [samples_of.get_num_samples(segment_index=segment) for segment in segments]
    for segment in segments:
        start = clock.sample_index_to_time(0, segment_index=segment)
        last = clock.sample_index_to_time(num_samples[segment] - 1, segment_index=segment)
        shifts.append(max(end - start, 0.0))
        end = last + 1 / samples_of.sampling_frequency + shifts[segment]
        before_gaps = _before_gaps(recording, segment)
        firsts, lasts = np.append(0, before_gaps + 1), np.append(before_gaps, num_samples[segment] - 1)
        starts, stops = (clock.sample_index_to_time(frames, segment_index=segment) for frames in (firsts, lasts))
        stops = stops + 1 / samples_of.sampling_frequency
        intervals.append(np.transpose([starts, stops]) + shifts[segment])
    return _TimeLine(clock, shifts, num_samples, np.concatenate(intervals))


def _before_gaps(recording: BaseRecording | None, segment: int) -> np.ndarray:
    """Find the samples after which the recording's clock goes on by more than GAP frames."""
    if recording is None or not recording.has_time_vector(segment_index=segment):
        return np.empty(0, dtype=np.int64)
    steps = np.diff(recording.get_times(segment_index=segment)) * recording.sampling_frequency
    return np.flatnonzero(steps > GAP)


def _time_columns(sorting: BaseSorting, time_line: _TimeLine) -> list[VectorData]:
    segments = range(sorting.get_num_segments())
    trains = [
        np.concatenate([time_line.seconds(sorting.get_unit_spike_train(unit_id, i), i) for i in segments])
        for unit_id in sorting.unit_ids
    ]
    columns = _ragged("spike_times", "the spike times for each unit in seconds", trains, np.empty(0))
    if len(time_line.intervals):
        columns += _ragged(
            "obs_intervals",
            "the time each stretch of the recording without a gap covers, in seconds",
            [time_line.intervals] * len(trains),
            np.empty((0, 2)),
        )
    return columns


def _add_set_aside(nwbfile: NWBFile, sorting: BaseSorting, time_line: _TimeLine) -> None:
    """Write the stretches that the sorter set aside, without looking for spikes there, as invalid times."""
    for segment, start_s, end_s, reason in sorting.get_annotation("set_aside") or []:
        first, last = (round(time * sorting.sampling_frequency) for time in (start_s, end_s))
        start = float(time_line.seconds(first, segment))
        stop = float(time_line.seconds(max(last - 1, first), segment)) + 1 / sorting.sampling_frequency
        nwbfile.add_invalid_time_interval(start_time=start, stop_time=stop, tags=[str(reason)])


def _unit_channels(analyzer: SortingAnalyzer) -> list[np.ndarray]:
    """Return the indices of the channels of each unit, in order; see `write_nwb_units` for which these are."""
    if analyzer.is_sparse():
        mask = analyzer.sparsity.mask  # (K, N)
    elif analyzer.has_extension("templates"):
        mask = ChannelSparsity.from_best_channels(analyzer, num_channels=MAX_ELECTRODES).mask
    else:
        return [np.array([channel]) for channel in analyzer.get_main_channels()]
    return [np.flatnonzero(row) for row in mask]


def _waveform_columns(analyzer: SortingAnalyzer, unit_channels: list[np.ndarray]) -> list[VectorData]:
    if not analyzer.has_extension("templates"):
        return []
    if not analyzer.return_in_uV:
        warnings.warn(
            "The analyzer's templates are not in µV, so waveform_mean and waveform_sd are left out; create "
            "it with return_in_uV=True to have them.",
            stacklevel=4,
        )
        return []
    extension = analyzer.get_extension("templates")
    num_electrodes = max((len(channels) for channels in unit_channels), default=0)
    columns = []
    for name, operator, description in WAVEFORMS:
        if operator not in extension.params["operators"]:
            continue
        templates = extension.get_data(operator)  # (K, D, N), µV
        waveforms = np.full((*templates.shape[:2], num_electrodes), np.nan, dtype=np.float32)
        for unit, channels in enumerate(unit_channels):
            waveforms[unit, :, : len(channels)] = templates[unit][:, channels] * 1e-6
        columns.append(_column(name, description, waveforms))
    return columns


def _spike_columns(sorting: BaseSorting, descriptions: dict[str, str]) -> list[VectorData]:
    """Return a column for each property that has one value for each spike of each unit."""
    counts = sorting.count_num_spikes_per_unit(outputs="array")  # over all segments
    columns = []
    for name, of_spikes in spike_properties(sorting).items():
        values = _plain(of_spikes) if len(of_spikes) else None
        if values is not None:
            text = descriptions.get(name, f"property '{name}' of each spike in the sorting")
            target = _column(name.replace("/", "_"), text, values)
            columns += [VectorIndex(name=f"{target.name}_index", data=np.cumsum(counts), target=target), target]
    return columns


def _scalars(
    sorting: BaseSorting, analyzer: SortingAnalyzer | None, descriptions: dict[str, str]
) -> dict[str, tuple[str, np.ndarray | list[str]]]:
    """Map each computed metric, and each property of one value per unit, to its description and values (K,)."""
    described: dict[str, tuple[str, np.ndarray | pd.Series]] = {}
    for extension_name in METRIC_EXTENSIONS:
        if analyzer is None or (extension := analyzer.get_extension(extension_name)) is None:
            continue
        metrics = extension.get_data().loc[sorting.unit_ids]
        metric_descriptions = extension.get_metric_column_descriptions()
        for name in metrics.columns:
            label = extension_name.replace("_", " ").removesuffix("s")
            described.setdefault(name, (metric_descriptions.get(name, f"{label} of SpikeInterface"), metrics[name]))
    for name in sorting.get_property_keys():
        text = descriptions.get(name, f"property '{name}' of the unit in the sorting")
        described.setdefault(name, (text, sorting.get_property(name)))
    plain = {name.replace("/", "_"): (text, _plain(values)) for name, (text, values) in described.items()}
    return {name: (text, values) for name, (text, values) in plain.items() if values is not None}


def _plain(values: np.ndarray | pd.Series) -> np.ndarray | list[str] | None:
    """Return values as bool, int64, float64 or str, whichever can hold them, or None if none of these can.

    Numbers that are all 0 or 1, as counts and fractions may happen to be, become int8, since archives take 64 bits for
    them for a mistake.
    """
    if np.ndim(values) != 1:
        return None
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "boolean" and not pd.isna(values).any():
        return np.asarray(values, dtype=bool)
    if kind == "integer" and not pd.isna(values).any():
        return _in_one_byte(np.asarray(values, dtype=np.int64))
    if kind in ("integer", "floating", "mixed-integer-float", "boolean"):
        return _in_one_byte(pd.Series(values).astype("Float64").to_numpy(dtype=float, na_value=np.nan))
    if kind in ("string", "empty"):
        return ["" if missing else str(value) for value, missing in zip(values, pd.isna(values), strict=True)]
    return None


def _in_one_byte(values: np.ndarray) -> np.ndarray:
    are_0_and_1 = len(values) and np.isin(values, (0, 1)).all() and values.min() < values.max()
    return values.astype(np.int8) if are_0_and_1 else values
