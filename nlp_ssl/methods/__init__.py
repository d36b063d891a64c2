"""One method per file; importing it registers it. README.md beside this file says how to add one.

What docstrings write: x, x_s, u_w, u_s, ... are the logits that the net gives for a view ("x" labeled, "u" unlabeled,
"w" weak, "s" strong), y the labels and w the weights of the labeled rows, softmax(z) over the C classes, sg a value
without gradient, mean_B and mean_N means over the rows of the labeled and the unlabeled batch on all processes. CE(q,
z) = -sum_c q_c ln softmax(z)_c, H(p) = -sum_c p_c ln p_c, 1[...] is 1 where it is true and else 0, sharpen(p, T) is
p^(1/T) with rows scaled to the sum 1, ramp(t) rises from about 0 to 1 while the share t of training goes from 0 to
`ramp_up`. Other names are fields.
"""

from nlp_ssl.methods.adamatch import AdaMatch
from nlp_ssl.methods.adversarial import Adversarial
from nlp_ssl.methods.comatch import CoMatch
from nlp_ssl.methods.crmatch import CRMatch
from nlp_ssl.methods.dash import Dash
from nlp_ssl.methods.debiaspl import DebiasPL
from nlp_ssl.methods.defixmatch import DeFixMatch
from nlp_ssl.methods.distillation import Distillation
from nlp_ssl.methods.dividemix import DivideMix
from nlp_ssl.methods.entropy_min import EntropyMin
from nlp_ssl.methods.fixmatch import FixMatch
from nlp_ssl.methods.flexmatch import FlexMatch
from nlp_ssl.methods.freematch import FreeMatch
from nlp_ssl.methods.ict import ICT
from nlp_ssl.methods.jointmatch import JointMatch
from nlp_ssl.methods.label_propagation import LabelPropagation
from nlp_ssl.methods.marginmatch import MarginMatch
from nlp_ssl.methods.mean_teacher import MeanTeacher
from nlp_ssl.methods.meta_pseudo_labels import MetaPseudoLabels
from nlp_ssl.methods.mixmatch import MixMatch
from nlp_ssl.methods.mixtext import MixText
from nlp_ssl.methods.mixup_pseudo_label import MixUpPseudoLabel
from nlp_ssl.methods.multimatch import MultiMatch
from nlp_ssl.methods.pi_model import PiModel
from nlp_ssl.methods.pseudo_label import PseudoLabel
from nlp_ssl.methods.r_drop import RDrop
from nlp_ssl.methods.remixmatch import ReMixMatch
from nlp_ssl.methods.simmatch import SimMatch
from nlp_ssl.methods.softmatch import SoftMatch
from nlp_ssl.methods.supervised import Supervised
from nlp_ssl.methods.temporal_ensembling import TemporalEnsembling
from nlp_ssl.methods.uda import UDA
from nlp_ssl.methods.vat import VAT

__all__ = [
    "AdaMatch",
    "Adversarial",
    "CRMatch",
    "CoMatch",
    "Dash",
    "DeFixMatch",
    "DebiasPL",
    "Distillation",
    "DivideMix",
    "EntropyMin",
    "FixMatch",
    "FlexMatch",
    "FreeMatch",
    "ICT",
    "JointMatch",
    "LabelPropagation",
    "MarginMatch",
    "MeanTeacher",
    "MetaPseudoLabels",
    "MixMatch",
    "MixText",
    "MixUpPseudoLabel",
    "MultiMatch",
    "PiModel",
    "PseudoLabel",
    "RDrop",
    "ReMixMatch",
    "SimMatch",
    "SoftMatch",
    "Supervised",
    "TemporalEnsembling",
    "UDA",
    "VAT",
]
