"""Hyper-parameters that many methods have: type, range and the sentence that help, docstrings and docs show."""

from typing import Annotated

from nlp_ssl.utils.ranges import Range, Share, Weight

Threshold = Annotated[
    Share,
    "least probability of a pseudo-label that counts; lower it where mask_rate stays near 0, raise it where labels err",
]
UnlabeledWeight = Annotated[
    Weight,
    "weight of the loss on pseudo-labels relative to that on labels; lower it where wrong pseudo-labels do harm",
]
SquaredWeight = Annotated[
    Weight,
    "weight of the squared difference of probabilities on unlabeled rows; far above 1, as these differences are small",
]
RampUp = Annotated[
    Share,
    "share of training over which the unlabeled weight rises to its value; raise it where early targets are poor",
]
Decay = Annotated[
    float,
    Range(0.0, 0.9999),
    "decay of the running means per step; 0.9 looks back about 10 batches, raise it for long runs and small batches",
]
EmaDecay = Annotated[
    Share,
    "largest decay per step of the teacher's average of weights; 0.99 suits hundreds of steps, 0.999 many thousands",
]
MixAlpha = Annotated[
    float,
    Range(0.0, 1e3),
    "both parameters of the Beta distribution of mixing shares; small mixes little, large half and half, 0 not at all",
]
Lowest = Annotated[
    Share,
    "threshold of a class of which no row is selected yet; raise it for nets that start at random and guess at first",
]
TargetDropout = Annotated[
    bool,
    "dropout stays on in the pass that computes the targets, as in most original implementations",
]
