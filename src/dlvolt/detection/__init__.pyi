from .adaptive import AdaptivePeakDetector as AdaptivePeakDetector
from .baselines import adaptive_matched_filter as adaptive_matched_filter
from .baselines import adaptive_threshold as adaptive_threshold
from .baselines import gaussian_threshold as gaussian_threshold
from .expected_f1 import best_expected_f1 as best_expected_f1
from .expected_f1 import expected_f1_thresholds as expected_f1_thresholds
from .network import NetworkPeakDetector as NetworkPeakDetector
from .shadowing import shadow as shadow
