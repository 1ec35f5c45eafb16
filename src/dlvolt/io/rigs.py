"""Recordings as acquisition systems write them: which of SpikeInterface's readers can read a file or folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from spikeinterface.core import BaseRecording, read_binary
from spikeinterface.extractors import read_split_intan_files
from spikeinterface.extractors.extractor_classes import neo_recording_class_dict

from dlvolt.io.errors import unreadable
from dlvolt.io.hdf5 import check_hdf5
from dlvolt.io.streams import choose_stream, describe_streams, neo_reader, streams_of_header

MIN_SAMPLING_FREQUENCY = 6000.0  # Hz; local field potentials, which are slower, are no stream to sort
NOT_NEURAL = re.compile(
    r"nidq|\blf\b|sync|aux|adc|dac|analog|digital|supply|temperature|\bDC\b|stim|event|accel|gyro|magn", re.IGNORECASE
)


class Candidate(NamedTuple):
    """A reader that may read a file or folder."""

    reader: str  # as in SpikeInterface's read_…
    path: Path  # what it takes


ENDINGS = {  # reader: the endings of its files
    "intan": (".rhd", ".rhs"),
    "blackrock": (".ns1", ".ns2", ".ns3", ".ns4", ".ns5", ".ns6"),
    "plexon": (".plx",),
    "plexon2": (".pl2",),
    "neuralynx": (".ncs",),
    "spikeglx": (".ap.meta", ".lf.meta", ".ap.bin", ".lf.bin"),
    "biocam": (".brw",),
    "ced": (".smr", ".smrx"),
    "edf": (".edf",),
    "spikegadgets": (".rec",),
    "tdt": (".tsq",),
    "alphaomega": (".mpx",),
    "axona": (".set",),
    "nix": (".nix",),
    "neuronexus": (".xdat.json",),
    "neuroexplorer": (".nex", ".nex5"),
}
OF_FOLDERS = ("neuralynx", "spikeglx", "tdt", "alphaomega")  # these readers take the folder of the files
HDF5_ENDINGS = (".h5", ".hdf5")
RAW_ENDINGS = (".bin", ".dat", ".raw")
READERS = tuple(sorted([*ENDINGS, "maxwell", "mearec", "binary"]))
NEEDED = {"sampling_frequency", "num_channels", "dtype"}
KNOWN = NEEDED | {"gain_to_uV", "offset_to_uV", "time_axis", "file_offset", "is_filtered", "channel_ids"}


def find_readers(source: Path) -> list[Candidate]:
    """List the readers for a file or folder, by its ending or by the files right in it.

    There is none if its kind is not known, and more than one if there are files of several recordings.
    """
    if source.is_file():
        found = [_known(source)]
    else:
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
        found = [_known(path) for path in files]
        if not any(found):  # SpikeGLX has a folder for each probe
            found = [Candidate("spikeglx", source) for _ in source.glob("*/*.ap.meta")]
    return sorted({candidate for candidate in found if candidate is not None})


def _known(path: Path) -> Candidate | None:
    """Return the reader for a file, by its ending and, of HDF5 and raw files, by what is in it or beside it."""
    name = path.name.lower()
    for reader, endings in ENDINGS.items():
        if name.endswith(endings):
            return Candidate(reader, path.parent if reader in OF_FOLDERS else path)
    if name.endswith(HDF5_ENDINGS) and h5py.is_hdf5(path):
        with unreadable("source", path, "HDF5"), h5py.File(path) as file:
            if "nwb_version" in file.attrs:
                return None
            if "version" in file and ("mapping" in file or "wells" in file):
                return Candidate("maxwell", path)
            if "recordings" in file and "channel_positions" in file:
                return Candidate("mearec", path)
    if name.endswith(RAW_ENDINGS) and path.with_suffix(".json").is_file():
        return Candidate("binary", path)
    return None


def read_rig(
    source: Path, candidates: list[Candidate], *, stream_name: str | None = None, reader: str | None = None
) -> BaseRecording:
    """Read a recording with the one of the `candidates`, or with the `reader` that is asked for.

    It is annotated with ``reader`` (and ``reader_stream`` where the format has streams), and with
    ``session_start_time`` where the file tells.
    """
    if reader is not None:
        if reader not in READERS:
            raise ValueError(f"reader: there is no {reader!r}; choose one of {', '.join(READERS)}.")
        candidates = [each for each in candidates if each.reader == reader] or [Candidate(reader, source)]
    several = source.is_dir() and len(candidates) > 1
    if several and {each.reader for each in candidates} == {"intan"}:  # a file for each minute
        return _read(source, "split_intan_files", lambda: read_split_intan_files(source, mode="concatenate"))
    if len(candidates) > 1:
        listed = ", ".join(f"{each.reader}: '{each.path}'" for each in candidates)
        raise ValueError(f"source: {source} holds several recordings; give one of {listed}, or the reader.")
    (candidate,) = candidates
    if candidate.reader == "binary":
        return _read(source, "binary", lambda: _read_binary(candidate.path))
    if candidate.reader in ("maxwell", "mearec"):  # whose readers read attributes and small datasets of any kind
        check_hdf5(candidate.path)
    extractor = neo_recording_class_dict[candidate.reader]
    header, block = _read(source, candidate.reader, lambda: _header(extractor, candidate.path))
    if header["nb_block"] > 1:
        raise ValueError(f"source: {candidate.path} holds {header['nb_block']} recordings (blocks); give one of them.")
    stream = choose_neural_stream(streams_of_header(header), stream_name, source)
    kwargs: dict[str, Any] = {} if candidate.reader == "mearec" else {"stream_name": stream}
    if candidate.reader == "maxwell":  # its decompressor is not to be fetched from the network unasked
        kwargs["install_maxwell_plugin"] = False
    recording = _read(source, candidate.reader, lambda: extractor(candidate.path, **kwargs))
    recording._kwargs |= kwargs  # SpikeInterface forgets some, which a worker needs
    recording.annotate(reader_stream=stream)
    if isinstance(start := block.get("rec_datetime"), datetime):
        recording.annotate(session_start_time=start.isoformat())
    return recording


def _read(source: Path, reader: str, read: Callable[[], Any]) -> Any:
    """Return what a reader returns; of a recording, read the first sample as well, and annotate it with the reader."""
    with unreadable("source", source, f"SpikeInterface's read_{reader}"):
        result = read()
        if isinstance(result, BaseRecording):
            result.get_traces(segment_index=0, start_frame=0, end_frame=1)
    if isinstance(result, BaseRecording):
        result.annotate(reader=f"read_{reader}")
    return result


def _header(extractor: type[BaseRecording], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return Neo's header of a recording, and its annotations."""
    neo = neo_reader(extractor, path)
    return neo.header, neo.raw_annotations["blocks"][0]


def choose_neural_stream(streams: dict[str, np.ndarray], stream_name: str | None, source: Path) -> str:
    """Return the full name of the stream that is asked for, else that of the only one of electrodes."""
    described = describe_streams(streams)
    if not described:
        raise ValueError(f"source: {source} has no stream of signals; it may be damaged or not whole.")
    neural = [
        name
        for name in described
        if streams[name]["sampling_rate"][0] >= MIN_SAMPLING_FREQUENCY
        and not NOT_NEURAL.search(re.sub(r"[._]", " ", name))
    ]
    problem = "several streams" if neural else "no stream that is sure to be of electrodes"
    return choose_stream(stream_name, described, source, problem, likely=neural)


def _read_binary(path: Path) -> BaseRecording:
    """Read a raw file that a JSON file of the same name describes."""
    described = path.with_suffix(".json")
    if not described.is_file():
        raise ValueError(f"there is no {described.name} beside it that tells {', '.join(sorted(NEEDED))}")
    given = json.loads(described.read_text(encoding="utf-8"))
    if not isinstance(given, dict) or NEEDED - set(given):
        raise ValueError(f"{described.name} must tell {', '.join(sorted(NEEDED))}")
    if unknown := set(given) - KNOWN:
        raise ValueError(f"{described.name} tells {', '.join(sorted(unknown))}; it may tell {', '.join(sorted(KNOWN))}")
    if ("gain_to_uV" in given) != ("offset_to_uV" in given):
        given = {"gain_to_uV": 1.0, "offset_to_uV": 0.0} | given
    recording = read_binary([path], **given)
    if recording.get_num_samples(segment_index=0) == 0:
        raise ValueError(f"it has no whole sample of {given['num_channels']} channels")
    return recording
