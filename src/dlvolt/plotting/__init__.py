"""Pictures of recordings, their units and what models make of them: matplotlib for papers, plotly to look around."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
