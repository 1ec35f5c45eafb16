"""Sortings against the truth and against each other, by SpikeInterface, at the low rates of cameras too."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from spikeinterface.comparison import GroundTruthComparison, SymmetricSortingComparison
from spikeinterface.comparison.paircomparisons import BasePairSorterComparison
from spikeinterface.core import BaseSorting, NumpySorting

SHARPNESS_MS = 1.0  # peaks of the action potential, of its current and of the light lie so far apart
ROUNDING_MS = 0.002  # times are rounded to a microsecond, and SpikeInterface truncates the tolerance to whole frames
MICROSECONDS = 1e6  # frequency in Hz of the clock for sortings that have none in common

Match = Literal["id", "agreement"]


def comparison_tolerance_ms(*sortings: BaseSorting) -> float:
    """Return how far apart, in ms, two spikes may be to be taken for the same: 1 ms and a frame of the slower clock.

    The frame is there because a spike may be anywhere in the frame that shows it, while a sorting places it at the
    frame's beginning. The millisecond is there because the peaks of the action potential, of its current and of the
    light differ. So the tolerance is 3 ms for 500 Hz, also against 20 kHz, and 1.05 ms for 20 kHz alone.
    SpikeInterface's own 0.4 ms, made for electrodes, are less than a frame below 2,500 Hz.

    Parameters
    ----------
    *sortings : BaseSorting
        One or more sortings.
    """
    return SHARPNESS_MS + 1000 / min(sorting.sampling_frequency for sorting in sortings)


def compare_to_ground_truth(
    truth: BaseSorting,
    sorting: BaseSorting,
    *,
    tolerance_ms: float | None = None,
    match: Match = "id",
    **kwargs: Any,
) -> GroundTruthComparison:
    """Compare a sorting with the truth, whose clock may be another one.

    Sortings that differ in sampling frequency, start time or time vector are first brought to one clock, of
    microseconds. Their times are those of the recordings they are registered with; where one of the two knows no start
    time, both are taken to begin together.

    Parameters
    ----------
    truth : BaseSorting
        The true spikes, for example of a patched cell at 20 kHz.
    sorting : BaseSorting
        The spikes found, for example in voltage imaging at 500 Hz, with as many segments as the truth.
    tolerance_ms : float, optional
        How far apart a true spike and the one found for it may be, in ms, this distance included; by default
        `comparison_tolerance_ms`.
    match : {"id", "agreement"}, default: "id"
        Which units are compared. "id" takes those of the same id, as 3 and "3" are, whatever their agreement, because
        an ROI tells which neuron it shows. "agreement" lets SpikeInterface find those that agree most, which is right
        where ids are mere numbers, as those of extracellular units are.
    **kwargs
        Further arguments of SpikeInterface's `GroundTruthComparison`, such as ``exhaustive_gt``.

    Returns
    -------
    GroundTruthComparison
        SpikeInterface's own, with ``get_performance()`` and all else. SpikeInterface gives true units without a single
        spike 0: leave them out of means.

    Raises
    ------
    ValueError
        If segments differ in number, a sorting has no units, no ids are shared, or an argument is out of range.
    """
    classes = {"id": _GroundTruthComparisonById, "agreement": GroundTruthComparison}
    return _compare(classes, truth, sorting, tolerance_ms, match, kwargs)


def compare_sortings(
    sorting: BaseSorting,
    other: BaseSorting,
    *,
    tolerance_ms: float | None = None,
    match: Match = "id",
    **kwargs: Any,
) -> SymmetricSortingComparison:
    """Compare two sortings, neither of which is the truth.

    Parameters
    ----------
    sorting, other : BaseSorting
        Sortings with the same number of segments. They are brought to one clock as in `compare_to_ground_truth`.
    tolerance_ms, match
        As for `compare_to_ground_truth`.
    **kwargs
        Further arguments of SpikeInterface's `SymmetricSortingComparison`, such as ``sorting1_name``.

    Returns
    -------
    SymmetricSortingComparison
        SpikeInterface's own. ``agreement_scores`` has spikes in both / spikes in either for each pair of units,
        ``get_matching()`` which are taken for the same.
    """
    classes = {"id": _SortingComparisonById, "agreement": SymmetricSortingComparison}
    return _compare(classes, sorting, other, tolerance_ms, match, kwargs)


class _ById(BasePairSorterComparison):
    """Matches units of one id instead of those that agree most."""

    def _do_matching(self) -> None:
        super()._do_matching()
        self.hungarian_match_12 = _partners(self.unit1_ids, self.unit2_ids)
        self.hungarian_match_21 = _partners(self.unit2_ids, self.unit1_ids)


class _GroundTruthComparisonById(_ById, GroundTruthComparison):
    pass


class _SortingComparisonById(_ById, SymmetricSortingComparison):
    pass


def _partners(ids: np.ndarray, others: np.ndarray) -> pd.Series:
    """Return for each id the other id of the same name, or -1 ("" where ids are names), as SpikeInterface does."""
    by_name = {str(other): other for other in others}
    none = -1 if others.dtype.kind == "i" else ""
    return pd.Series([by_name.get(str(one), none) for one in ids], index=ids)


def _compare(
    classes: dict[str, type],
    first: BaseSorting,
    second: BaseSorting,
    tolerance_ms: float | None,
    match: Match,
    kwargs: dict[str, Any],
) -> GroundTruthComparison | SymmetricSortingComparison:
    if match not in classes:
        raise ValueError(f'match: must be "id" or "agreement", not {match!r}.')
    if first.get_num_segments() != second.get_num_segments():
        raise ValueError(
            f"sorting: one has {first.get_num_segments()} segments, the other {second.get_num_segments()}; "
            "compare what was recorded together."
        )
    if len(first.unit_ids) == 0 or len(second.unit_ids) == 0:
        raise ValueError(f"sorting: {len(first.unit_ids)} units against {len(second.unit_ids)}; both must have some.")
    if match == "id" and not set(map(str, first.unit_ids)) & set(map(str, second.unit_ids)):
        raise ValueError(
            f"match: no id is in both, {list(first.unit_ids[:3])} … against {list(second.unit_ids[:3])} …; "
            'match="agreement" finds out which units go together.'
        )
    if tolerance_ms is None:
        tolerance_ms = comparison_tolerance_ms(first, second)
    if not 0 <= tolerance_ms < np.inf:
        raise ValueError(f"tolerance_ms: must be 0 or more, not {tolerance_ms}.")
    pair = (first, second) if _share_frames(first, second) else _in_microseconds(first, second)
    return classes[match](*map(_with_signed_ids, pair), delta_time=tolerance_ms + ROUNDING_MS, **kwargs)


def _share_frames(first: BaseSorting, second: BaseSorting) -> bool:
    """Tell whether each frame is the same time for both; where one knows no start time, they begin together."""

    def times(sorting: BaseSorting, segment: int) -> np.ndarray | float:
        return sorting.get_times(segment) if sorting.has_time_vector(segment) else sorting.get_start_time(segment)

    return first.sampling_frequency == second.sampling_frequency and all(
        np.array_equal(times(first, segment), times(second, segment))
        for segment in range(first.get_num_segments())
        if _both_know_start(first, second, segment)
    )


def _both_know_start(first: BaseSorting, second: BaseSorting, segment: int) -> bool:
    return all(sorting.segments[segment]._t_start is not None for sorting in (first, second))


def _in_microseconds(first: BaseSorting, second: BaseSorting) -> tuple[BaseSorting, BaseSorting]:
    """Return both sortings with a frame for each microsecond."""

    def convert(sorting: BaseSorting) -> BaseSorting:
        trains = []
        for segment in range(sorting.get_num_segments()):
            zero = 0.0 if _both_know_start(first, second, segment) else sorting.get_start_time(segment)
            times = {unit: sorting.get_unit_spike_train_in_seconds(unit, segment) - zero for unit in sorting.unit_ids}
            trains.append({unit: np.round(MICROSECONDS * seconds).astype("int64") for unit, seconds in times.items()})
        return NumpySorting.from_unit_dict(trains, MICROSECONDS)

    return convert(first), convert(second)


def _with_signed_ids(sorting: BaseSorting) -> BaseSorting:
    """Return a sorting whose ids SpikeInterface can match; label images give unsigned ones."""
    ids = sorting.unit_ids
    return sorting.rename_units(ids.astype("int64")) if ids.dtype.kind == "u" else sorting
