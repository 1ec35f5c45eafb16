"""Where the channels of a recording sit: a given probe, a generated layout, or a stated assumption."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
from probeinterface import Probe, ProbeGroup, generate_linear_probe, generate_tetrode, read_probeinterface
from spikeinterface.core import BaseRecording

PITCH_UM = 20.0
TETRODE_SPACING_UM = 250.0  # far enough that no spike is seen by two tetrodes

ProbeLike: TypeAlias = Probe | ProbeGroup | Path | str


def attach_probe(recording: BaseRecording, probe: ProbeLike | None = None) -> None:
    """Attach a probe to a recording, in place.

    Parameters
    ----------
    recording : BaseRecording
        The recording, of N channels.
    probe : Probe, ProbeGroup, path or str, optional
        A probe, the path of a probeinterface JSON, or a layout of the channels in file order: ``"linear"`` (vertical
        line, 20 µm apart), ``"linear:25"`` (25 µm apart) or ``"tetrode"`` (groups of four). Contacts without
        ``device_channel_indices`` are taken in order. By default the recording's own probe; if it has none with
        usable locations, ``"linear"`` is assumed, with a warning.

    Raises
    ------
    FileNotFoundError
        If `probe` names neither a file nor a layout.
    ValueError
        If `probe` cannot be read or does not have one connected contact for each channel.
    """
    num_channels = recording.get_num_channels()
    if probe is None:
        if _has_usable_locations(recording):
            return
        warnings.warn(
            f"No probe in the source: assuming its {num_channels} channels, in file order, on a vertical "
            f"line {PITCH_UM:g} µm apart; give the real one with probe=, e.g. a probeinterface JSON, "
            "'tetrode' or 'linear:25'.",
            stacklevel=3,
        )
        probe = "linear"

    probegroup = _as_probegroup(probe, num_channels)
    wiring = probegroup.get_global_device_channel_indices()["device_channel_indices"]
    if np.all(wiring < 0) and len(wiring) == num_channels:
        wiring = np.arange(num_channels)
        probegroup.set_global_device_channel_indices(wiring)
    if sorted(wiring[wiring >= 0]) != list(range(num_channels)):
        raise ValueError(
            f"probe: has {len(wiring)} contacts, {np.sum(wiring >= 0)} of them wired to channels, but the "
            f"recording has {num_channels} channels; give a probe whose device_channel_indices name each of "
            f"0 to {num_channels - 1} once."
        )
    recording.set_probegroup(probegroup)


def _has_usable_locations(recording: BaseRecording) -> bool:
    if not recording.has_probe():
        return False
    locations = recording.get_channel_locations()  # (N, 2) or (N, 3), µm
    distinct = len(np.unique(locations, axis=0))
    return bool(np.isfinite(locations).all()) and (distinct > 1 or len(locations) == 1)


def _as_probegroup(probe: ProbeLike, num_channels: int) -> ProbeGroup:
    if isinstance(probe, ProbeGroup):
        return copy.deepcopy(probe)  # wiring it must not change the caller's
    if isinstance(probe, Probe):
        probegroup = ProbeGroup()
        probegroup.add_probe(copy.deepcopy(probe))
        return probegroup
    layout, _, pitch = str(probe).partition(":")
    if layout == "linear":
        return _linear(num_channels, pitch)
    if layout == "tetrode" and not pitch:
        return _tetrodes(num_channels)
    path = Path(probe)
    if not path.is_file():
        raise FileNotFoundError(
            f"probe: no file {path}; give a probeinterface JSON, or 'tetrode', 'linear' or 'linear:25'."
        )
    try:
        return read_probeinterface(path)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"probe: {path} is not a probeinterface JSON.") from error


def _linear(num_channels: int, pitch: str) -> ProbeGroup:
    try:
        pitch_um = float(pitch or PITCH_UM)
    except ValueError as error:
        raise ValueError(f"probe: 'linear:{pitch}' needs a pitch in µm, e.g. 'linear:25'.") from error
    if not 0 < pitch_um < np.inf:
        raise ValueError(f"probe: the pitch of 'linear:{pitch}' must be above 0 µm.")
    probegroup = ProbeGroup()
    probegroup.add_probe(generate_linear_probe(num_elec=num_channels, ypitch=pitch_um))
    return probegroup


def _tetrodes(num_channels: int) -> ProbeGroup:
    if num_channels % 4:
        raise ValueError(f"probe: 'tetrode' needs a multiple of four channels, but the recording has {num_channels}.")
    probegroup = ProbeGroup()
    for i in range(num_channels // 4):
        tetrode = generate_tetrode()
        tetrode.move([i * TETRODE_SPACING_UM, 0.0])
        probegroup.add_probe(tetrode)
    return probegroup
