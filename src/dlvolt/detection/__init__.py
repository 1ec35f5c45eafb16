"""From traces to peaks, in SpikeInterface's peak dtype."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"matched_filter": ["MatchedFilterPeakDetector", "find_prototype", "find_snippets"]},
)
