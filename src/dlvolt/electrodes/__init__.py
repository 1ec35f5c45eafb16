"""What belongs to recordings of electrodes: what in them is not neural, and which units have evidence."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "artefacts": ["Artefacts", "bridge_periods", "find_artefacts"],
        "hum": ["find_hum"],
    },
)
