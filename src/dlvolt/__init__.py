"""dlvolt: spike sorting and spike detection for SpikeInterface and NWB."""

from typing import Any

import lazy_loader

import _dlvolt_autoload
from dlvolt import moved

__version__ = "0.1.0"

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_dlvolt_autoload.install()
moved.install()


def __getattr__(name: str) -> Any:
    """Return a public name, or what an old name now is."""
    return _attribute(name) if name in __all__ else moved.attribute(__name__, name)
