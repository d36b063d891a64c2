"""Methods that work in rounds, one per file; importing it registers them."""

from nlp_ssl.rounds.noisy_student import NoisyStudent
from nlp_ssl.rounds.self_training import SelfTraining
from nlp_ssl.rounds.ust import UST

__all__ = ["UST", "NoisyStudent", "SelfTraining"]
