"""Pictures of recordings and their units, with matplotlib."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"sorting_summary": ["plot_sorting_summary"]},
)
