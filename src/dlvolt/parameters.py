"""Parameters of the sorter; SpikeInterface's defaults and descriptions derive from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from types import NoneType
from typing import Any

KINDS = {
    bool: (bool, "True or False"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "a string"),
    NoneType: (dict | None, "a dict or None"),
}  # by the type of a default: what a value must be, and what that is called
MAY_BE_ZERO = ("seed", "min_firing_rate", "amplitude_min")


def parameter(default: Any, description: str) -> Any:
    """Return a dataclass field that carries its description."""
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class SorterParameters:
    """Parameters of ``run_sorter("dlvolt", recording, …)``; `descriptions` tells what each is for."""

    apply_preprocessing: bool = parameter(
        True,
        "Filter, reference and whiten; False for a recording that is whitened already, noise of variance 1",
    )
    freq_min: float = parameter(300.0, "Corner of the high-pass filter, Hz")
    common_reference: bool = parameter(True, "Subtract the median over channels, from 64 channels on")
    whitening_radius_um: float = parameter(100.0, "Channels this close are decorrelated, µm")
    peak_sign: str = parameter("neg", "Sign of the peaks that are clustered: 'neg', 'pos' or 'both'")
    detect_threshold: float = parameter(5.0, "Height of peaks and of events, in noise standard deviations")
    detection_radius_um: float = parameter(75.0, "One peak within this radius and half a millisecond, µm")
    ms_before: float = parameter(1.0, "Extent of templates before the peak, ms")
    ms_after: float = parameter(2.0, "Extent of templates after the peak, ms")
    radius_um: float = parameter(100.0, "Extent of snippets around the main channel, µm")
    num_temporal_components: int = parameter(5, "Temporal components of the snippets that are clustered")
    rank: int = parameter(3, "Rank of the templates")
    amplitude_min: float = parameter(0.7, "Smallest amplitude of a spike, relative to its unit's typical one")
    amplitude_max: float = parameter(1.3, "Largest amplitude of a spike, relative to its unit's typical one")
    refractory_ms: float = parameter(1.0, "Spikes of one unit lie at least so far apart, ms")
    clustering_duration_s: float = parameter(300.0, "Peaks are clustered from so much of the recording, s")
    learning_duration_s: float = parameter(60.0, "Templates are learnt on so much of the recording, s")
    num_sweeps: int = parameter(4, "Sweeps of template learning")
    min_firing_rate: float = parameter(0.1, "Clusters and units that fire less are dropped, Hz")
    device: str = parameter("auto", "Torch device of the deconvolution; 'auto' takes CUDA where there is one")
    seed: int = parameter(0, "Same seed, same result")
    job_kwargs: dict | None = parameter(None, "SpikeInterface's job_kwargs; its global ones where nothing is said")

    def __post_init__(self) -> None:
        """Check the values, before any work.

        Raises
        ------
        ValueError
            Naming the parameter and what it may be.
        """
        for each in fields(self):
            value = getattr(self, each.name)
            kind, called = KINDS[type(each.default)]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{each.name} must be {called}, not {value!r}")
            least = "not be negative" if each.name in MAY_BE_ZERO else "be positive"
            if kind in (Integral, Real) and not (value > 0 or (value == 0 and each.name in MAY_BE_ZERO)):
                raise ValueError(f"{each.name} must {least}, not {value!r}")
        if self.peak_sign not in ("neg", "pos", "both"):
            raise ValueError(f"peak_sign must be 'neg', 'pos' or 'both', not {self.peak_sign!r}")
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
