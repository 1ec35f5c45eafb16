"""Recordings and traces in, units out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["nwb_session", "nwb_units", "open_ephys", "probes", "sources", "trace_files"],
    submod_attrs={
        "nwb_units": ["write_nwb_units"],
        "open_ephys": ["read_open_ephys"],
        "probes": ["attach_probe"],
        "sources": ["read_recording", "read_traces"],
        "trace_files": ["read_label_file", "read_trace_file"],
    },
)
