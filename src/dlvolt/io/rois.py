"""What recordings of regions of interest (ROIs) have in common: annotations, probe, and checks of their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
from probeinterface import Probe
from spikeinterface.core import BaseRecording

CONTACT_RADIUS_UM = 5.0  # about that of a soma; it is only drawn

Value = Literal["fluorescence", "delta_f_over_f"]


def describe_rois(
    recording: BaseRecording,
    *,
    centroid: np.ndarray | None = None,  # (N, 2), x and y
    centroid_unit: Literal["um", "pixels"] = "um",
    num_pixels: Sequence[int] | None = None,  # (N,)
    **annotations: Any,
) -> None:
    """Annotate a recording of N ROIs, in place, with what is known of them; what is None is not known.

    Centroids in µm also become the probe.
    """
    annotations = {name: item for name, item in annotations.items() if item is not None}
    recording.annotate(modality="optical", imaging_rate_hz=float(recording.sampling_frequency), **annotations)
    if num_pixels is not None:
        recording.set_property("num_pixels", np.asarray(num_pixels))
    if centroid is not None:
        recording.set_property("centroid", centroid)
        recording.set_property("centroid_unit", np.full(len(centroid), centroid_unit))
        if centroid_unit == "um":
            set_roi_probe(recording, centroid)


def set_roi_probe(recording: BaseRecording, centroid_um: np.ndarray) -> None:
    """Make centroids, (N, 2) in µm, the probe if all are finite and no two are equal, which probes forbid."""
    if np.isfinite(centroid_um).all() and len(np.unique(centroid_um, axis=0)) == len(centroid_um):
        probe = Probe(ndim=2, si_units="um")
        probe.set_contacts(centroid_um, shapes="circle", shape_params={"radius": CONTACT_RADIUS_UM})
        probe.set_device_channel_indices(np.arange(len(centroid_um)))
        recording.set_probe(probe)


def check_roi_ids(roi_ids: Sequence[int | str], num_rois: int) -> list[int | str]:
    """Return ROI ids as a list; raise unless there is a different one for each ROI."""
    roi_ids = np.asarray(roi_ids).tolist()
    if not isinstance(roi_ids, list) or len(roi_ids) != num_rois or len(set(roi_ids)) != num_rois:
        raise ValueError(f"roi_ids: must be a different name for each of the {num_rois} ROIs, not {roi_ids!r}.")
    return roi_ids


def is_positive(number: Any) -> bool:
    """Whether a value is a number above 0 and below infinity."""
    return isinstance(number, Real) and 0 < float(number) < np.inf


def check_sampling_frequency(sampling_frequency: float, argument: str = "sampling_frequency") -> None:
    """Raise unless a sampling frequency is a positive number, naming the argument that gave it."""
    if not is_positive(sampling_frequency):
        raise ValueError(f"{argument}: must be positive, in Hz, not {sampling_frequency!r}.")


def check_value(value: Value | None) -> None:
    """Raise unless `value` is one of the kinds of numbers that a recording of ROIs may hold, or None."""
    if value not in (None, "fluorescence", "delta_f_over_f"):
        raise ValueError(f"value: must be 'fluorescence', 'delta_f_over_f' or None, not {value!r}.")
