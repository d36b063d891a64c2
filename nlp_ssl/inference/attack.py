"""Predictions under the worst noise on the inputs."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.data.dataset import Store
from nlp_ssl.inference.predict import as_batch, batches, evaluating
from nlp_ssl.nets.base import Module, Net
from nlp_ssl.ops.adversary import AddNoise, Measure, sized
from nlp_ssl.ops.functional import ce
from nlp_ssl.types import Batch
from nlp_ssl.utils.counter_rng import row_keys
from nlp_ssl.utils.precision import Autocast


def predict_attacked(
    module: Module,
    store: Store,
    positions: np.ndarray,
    labels: np.ndarray,
    size: float,
    context: Autocast = nullcontext,
) -> Tensor:
    """Logits [n, C] float32 on the CPU under the noise that hurts most, in eval mode, in the order of `positions`.

    Every value of a row's word embeddings (not those of special tokens) or pixels moves by `size` times their standard
    deviation, in the direction of the sign of the gradient of the loss for the true labels [n]: the fast gradient sign
    method (Goodfellow et al. 2015, arXiv:1412.6572).
    """
    net, device = Net(module, autocast=context), next(module.parameters()).device
    lengths = np.minimum(store.lengths[positions], store.max_length)
    out = torch.empty(len(positions), module.classifier.out_features)
    with evaluating(module):
        for rows in batches(lengths):
            inputs, _ = store.views([(positions[rows], None, row_keys(0, 0, positions[rows]))])
            batch = as_batch({k: v.to(device) for k, v in inputs.items()}, lengths[rows], labels[rows])
            out[torch.from_numpy(rows)] = _attacked(net, batch, size).cpu()
    return out


@torch.no_grad()
def _attacked(net: Net, batch: Batch, size: float) -> Tensor:
    def loss(logits: Sequence[Tensor]) -> Tensor:
        return ce(logits[0], batch["y"].to(logits[0].device)).sum()

    inputs = Measure()
    net(batch, "x", edit=inputs, dropout=False)
    noise = sized(net.gradient(batch, "x", loss=loss), inputs, size, "linf")
    return net(batch, "x", edit=AddNoise(noise), dropout=False)[0]
