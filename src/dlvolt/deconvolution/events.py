"""Events: when which unit fires, and how strongly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Events(NamedTuple):
    """The non-zero amplitudes of a recording: a sparse A.

    Attributes
    ----------
    times : Tensor, shape (E,), int64
        First sample of the template.
    units : Tensor, shape (E,), int64
        Index of the unit.
    amplitudes : Tensor, shape (E,)
        a[unit, time], in units of the noise when the recording is whitened.
    shifts : Tensor or None, shape (E,), int64
        Index of the sub-sample shift of the template, see `fractions`; None where events sit on whole samples.
    """

    times: Tensor
    units: Tensor
    amplitudes: Tensor
    shifts: Tensor = None  # type: ignore[assignment]  # code that reads shifts is only given events that have them

    @property
    def on_whole_samples(self) -> bool:
        """Whether the events have no sub-sample shifts."""
        return self.shifts is None

    def select(self, mask: Tensor) -> Events:
        """Return some of the events, given a mask or indices."""
        return Events(*(field if field is None else field[mask] for field in self))

    def and_also(self, others: Events) -> Events:
        """Return these events and then others; all have shifts."""
        return Events(*(torch.cat(fields) for fields in zip(self, others, strict=True)))
