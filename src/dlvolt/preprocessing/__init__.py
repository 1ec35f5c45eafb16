"""Lazy preprocessors: each takes a recording and returns a recording, computed chunk by chunk."""

from importlib import import_module

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# SpikeInterface's preprocessors first: importing them registers ours, and so imports what is here. Were one of our
# modules the first to import them, it would be met there half imported.
import_module("spikeinterface.preprocessing")
