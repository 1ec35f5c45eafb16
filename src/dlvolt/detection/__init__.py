"""Detectors of the spikes of single traces, in SpikeInterface's peak dtype; and what networks are compared with."""

from typing import Any

import lazy_loader

from dlvolt import moved

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Return what is here, or was."""
    return _attribute(name) if name in __all__ else moved.attribute(__name__, name)
