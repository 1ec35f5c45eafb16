"""Templates from a sample of the recording: pursue, update, split, merge, prune."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "alignment": ["alignment"],
        "evidence": ["MAX_FALSE_DISCOVERY_RATE", "SINGLE", "Decoys", "Evidence"],
        "learn": ["learn_units"],
        "units": ["LearningSettings", "Matcher", "Matchers", "Units"],
    },
)
