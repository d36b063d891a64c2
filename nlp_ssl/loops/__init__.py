"""Methods that work in rounds, one per file; importing it registers them."""

from nlp_ssl.loops.noisy_student import NoisyStudent
from nlp_ssl.loops.self_training import SelfTraining
from nlp_ssl.loops.ust import UST

__all__ = ["UST", "NoisyStudent", "SelfTraining"]
