"""How right detected spikes are: scores of events, samples, rates, sortings and sorters; and the best threshold."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
