"""One method per file; importing it registers it. README.md beside this file says how to add one."""

from nlp_ssl.methods.dividemix import DivideMix
from nlp_ssl.methods.fixmatch import FixMatch
from nlp_ssl.methods.ict import ICT
from nlp_ssl.methods.mean_teacher import MeanTeacher
from nlp_ssl.methods.mixmatch import MixMatch
from nlp_ssl.methods.mixtext import MixText
from nlp_ssl.methods.mixup_pseudo_label import MixUpPseudoLabel
from nlp_ssl.methods.pi_model import PiModel
from nlp_ssl.methods.pseudo_label import PseudoLabel
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.methods.uda import UDA

__all__ = [
    "DivideMix",
    "FixMatch",
    "ICT",
    "MeanTeacher",
    "MixMatch",
    "MixText",
    "MixUpPseudoLabel",
    "PiModel",
    "PseudoLabel",
    "Supervised",
    "UDA",
]
