"""Recordings in, units out: Open Ephys folders, NWB files and SpikeInterface folders; NWB units tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["nwb_session", "nwb_units", "open_ephys", "probes", "sources"],
    submod_attrs={
        "nwb_units": ["write_nwb_units"],
        "open_ephys": ["read_open_ephys"],
        "probes": ["attach_probe"],
        "sources": ["read_recording"],
    },
)
