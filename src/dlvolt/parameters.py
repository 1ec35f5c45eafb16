"""Parameters of the sorter, from which SpikeInterface's defaults and descriptions and the command's flags derive."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from numbers import Integral, Real
from typing import Any

ROI_TRACES = ("delta_f_over_f", "spike_probability", "subthreshold")  # results for ROIs besides their spikes
CALLED = {  # kind of values: what error messages call it
    bool: "True or False",
    Integral: "an integer",
    Real: "a number",
    str: "a string",
    list: "a list",
    dict: "a dict",
    type(None): "None",
}
KIND_OF = {int: Integral, float: Real}  # a parameter whose default is of this type may be any number of this kind
MAY_BE_ZERO = ("seed", "min_firing_rate", "amplitude_min", "shadow_ms", "scatter_um", "burst_interval_ms")
CHOICES = {
    "modality": ("auto", "extracellular", "optical"),
    "motion_correction": ("auto", True, False),
    "peak_sign": ("neg", "pos", "both"),
    "crosstalk": ("flag", "remove", "ignore"),
}


def parameter(default: Any, description: str, *others: type, of: str = "both") -> Any:
    """Return a field of `SorterParameters`.

    Parameters
    ----------
    default : object
        Default; values may be of its type.
    description : str
        What the parameter is for.
    *others : type
        Other types that values may be of, keys of `CALLED`.
    of : str, default: "both"
        Recordings that the parameter is for: "electrodes", "rois" or "both".
    """
    kinds = (KIND_OF.get(type(default), type(default)), *others)
    return field(default=default, metadata={"description": description, "kinds": kinds, "of": of})


def of_electrodes(default: Any, description: str, *others: type) -> Any:
    """Return a `parameter` for recordings of electrodes."""
    return parameter(default, description, *others, of="electrodes")


def of_rois(default: Any, description: str, *others: type) -> Any:
    """Return a `parameter` for recordings of ROIs."""
    return parameter(default, description, *others, of="rois")


@dataclass(frozen=True)
class SorterParameters:
    """Parameters of ``run_sorter("dlvolt", recording, …)``; `descriptions` tells what each is for."""

    modality: str = parameter(
        "auto",
        "What the channels are: 'extracellular' (electrodes), 'optical' (ROIs, one unit each), or 'auto': what the "
        "reader says, else by the sampling frequency, optical below 6 kHz",
    )

    apply_preprocessing: bool = of_electrodes(
        True,
        "Filter, reference and whiten; False for a recording that is whitened already, to noise of variance 1",
    )
    freq_min: float = of_electrodes(300.0, "Corner of the high-pass filter, Hz")
    common_reference: bool = of_electrodes(True, "Subtract the median over channels, from 64 channels on")
    whitening_radius_um: float = of_electrodes(100.0, "Channels within this distance are decorrelated, µm")
    motion_correction: str | bool = of_electrodes(
        "auto",
        "Let templates follow the drift of the tissue: True, False, or 'auto': if drift is seen and not harmless",
        bool,
    )
    peak_sign: str = of_electrodes("neg", "Sign of the peaks that are clustered: 'neg', 'pos' or 'both'")
    detect_threshold: float = of_electrodes(5.0, "Height of the peaks that are clustered, in noise standard deviations")
    peak_model: str = of_electrodes(
        "none",
        "Network that drops noise from the peaks that are clustered: 'waveform_cnn', 'waveform_gru', the folder of a "
        "saved one, or 'none'",
    )
    detection_radius_um: float = of_electrodes(
        75.0, "Of peaks within this radius and half a millisecond, the largest is taken, µm"
    )
    ms_before: float = of_electrodes(1.5, "Extent of templates before the peak, ms")
    ms_after: float = of_electrodes(2.5, "Extent of templates after the peak, ms")
    radius_um: float = of_electrodes(100.0, "Extent of snippets around the main channel, µm")
    num_temporal_components: int = of_electrodes(5, "Temporal components of the snippets that are clustered")
    rank: int = of_electrodes(8, "Largest rank of the templates")
    amplitude_min: float = of_electrodes(0.5, "Smallest amplitude of a spike, relative to its unit's typical one")
    amplitude_max: float = of_electrodes(1.5, "Largest amplitude of a spike, relative to its unit's typical one")
    refractory_ms: float = of_electrodes(1.0, "Spikes of one unit lie at least so far apart, ms")
    clustering_duration_s: float = of_electrodes(200.0, "Peaks are clustered from so much of the recording, s")
    learning_duration_s: float = of_electrodes(60.0, "Templates are learnt on so much of the recording, s")
    num_sweeps: int = of_electrodes(3, "Sweeps of template learning, after one less and a search for missed units")
    min_firing_rate: float = of_electrodes(0.1, "Clusters and units that fire less are dropped, Hz")

    model: str = of_rois(
        "voltage",
        "Network that finds spikes: weights of dlvolt, or the folder of a saved model; 'calcium+s2s', the mean of two, "
        "for fluorescence of calcium, also by default where the recording is annotated with modality='calcium'",
    )
    refine: bool = of_rois(
        True,
        "Let a model of each trace, learnt from the trace itself, decide on the spikes that the network proposes, or "
        "refine the rates that it estimates; False: the network alone",
    )
    polarity: str | list = of_rois(
        "auto",
        "Which way spikes go: 'positive', 'negative', a list of these for all channels, or 'auto': inferred",
        list,
    )
    probability_threshold: str | float = of_rois(
        "auto", "Least probability of a spike; 'auto' takes the model's own, with 'voltage' chosen for each ROI", Real
    )
    shadow_ms: str | float = of_rois(
        "auto", "A spike suppresses less probable ones so near, ms; 'auto' takes the model's own", Real
    )
    baseline_window_s: float = of_rois(5.0, "Window of the running baseline F0 of ΔF/F, s")
    burst_interval_ms: float = of_rois(10.0, "Longest interval between the spikes of a burst, ms; 0: there are none")
    crosstalk: str = of_rois(
        "flag", "Spikes that leak in from a neighbouring ROI: 'flag', 'remove' from the weaker one, or 'ignore'"
    )
    scatter_um: float = of_rois(20.0, "ROIs whose borders are so close may leak into each other, µm")

    device: str = parameter("auto", "Torch device; 'auto' takes CUDA where there is one")
    seed: int = parameter(0, "Same seed, same result")
    job_kwargs: dict | None = parameter(
        None,
        "SpikeInterface's job_kwargs, None for its global ones; always in threads, by default in long chunks for ROIs",
        dict,
    )

    def __post_init__(self) -> None:
        """Check the values, before any work.

        Raises
        ------
        ValueError
            If a value is not allowed; the message names the parameter and what it may be.
        """
        for each in fields(self):
            value, kinds = getattr(self, each.name), each.metadata["kinds"]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                called = " or ".join(CALLED[kind] for kind in kinds)
                raise ValueError(f"{each.name} must be {called}, not {value!r}")
            if isinstance(value, Real) and bool not in kinds:
                may_be_zero = each.name in MAY_BE_ZERO
                if not isfinite(value):
                    raise ValueError(f"{each.name} must be finite, not {value!r}")
                if value < 0 or (value == 0 and not may_be_zero):
                    least = "not be negative" if may_be_zero else "be positive"
                    raise ValueError(f"{each.name} must {least}, not {value!r}")
            if each.name in CHOICES and value not in CHOICES[each.name]:
                *others, last = map(repr, CHOICES[each.name])
                raise ValueError(f"{each.name} must be {', '.join(others)} or {last}, not {value!r}")
        polarities = [self.polarity] if isinstance(self.polarity, str) else self.polarity
        if self.polarity != "auto" and not all(one in ("positive", "negative") for one in polarities):
            raise ValueError(
                f"polarity must be 'auto', 'positive', 'negative' or a list of the latter two, not {self.polarity!r}"
            )
        for name in ("probability_threshold", "shadow_ms"):
            if isinstance(getattr(self, name), str) and getattr(self, name) != "auto":
                raise ValueError(f"{name} must be 'auto' or a number, not {getattr(self, name)!r}")
        if not isinstance(self.probability_threshold, str) and self.probability_threshold > 1:
            raise ValueError(f"probability_threshold must be at most 1, not {self.probability_threshold}")
        if not 0 <= self.amplitude_min < 1 < self.amplitude_max:
            raise ValueError(
                "amplitude_min and amplitude_max must lie on either side of 1, "
                f"not {self.amplitude_min} and {self.amplitude_max}"
            )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return every parameter with its default, as ``get_default_sorter_params("dlvolt")`` gives them."""
        return asdict(cls())

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """Return every parameter with its description."""
        return {each.name: each.metadata["description"] for each in fields(cls)}
