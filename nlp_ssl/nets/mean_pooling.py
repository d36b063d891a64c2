"""Classifiers of transformers that pool the mean of the last layer, and whose saved folders open everywhere.

The stock classes of BERT's family pool the first token. An encoder that was trained to embed sentences has never
trained what that token says, so that a few labels teach such a classifier next to nothing.
"""

import copy
from collections.abc import Mapping
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertForSequenceClassification,
    CamembertForSequenceClassification,
    ElectraForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput

_POOLED_KEY = "nlp_ssl_pooling"  # in config.json of a saved model whose last layer is the pooling layer
_MEAN_WEIGHT = 64.0  # weight of the mean against the residual of the first token in the pooling layer


class MeanPooled(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What a classifier of BERT's shape becomes that pools the mean.

    A transformer layer with zero queries attends evenly to all tokens, so `save_pretrained` writes the mean as one
    more, ordinary layer: the saved folder opens with `AutoModelForSequenceClassification`, as a model of the stock
    class, and gives the same logits. `load_state_dict` takes these weights, too.
    """

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Logits [R, C], and with `labels` their loss, as those of the stock class."""
        hidden = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        ).last_hidden_state  # [R, L, H]
        mask = hidden.new_ones(hidden.shape[:2]) if attention_mask is None else attention_mask
        logits = self.logits(mean_pool(hidden, mask, self.config.layer_norm_eps).to(self.dtype)[:, None])
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output

    def logits(self, pooled: Tensor) -> Tensor:
        """Logits [R, C] of pooled states [R, 1, H]."""
        return cast(Tensor, cast(Any, self).classifier(pooled))

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[Any, Any] | None = None,
        *args: Any,
        **options: Any,
    ) -> None:
        """As any model's, of the stock class: the mean becomes its last layer."""
        folded = _folded(self, self.state_dict() if state_dict is None else state_dict)
        folded.save_pretrained(save_directory, is_main_process, None, *args, **options)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes the model's own weights, or those that `save_pretrained` wrote: its last layer is the mean."""
        prefix = _pooling_layer(self)
        own = {name: value for name, value in state_dict.items() if not name.startswith(prefix)}
        return super().load_state_dict(own, strict, assign)


class MeanBert(MeanPooled, BertForSequenceClassification):  # type: ignore[no-untyped-call]
    """`BertForSequenceClassification` that pools the mean."""

    def logits(self, pooled: Tensor) -> Tensor:
        """Logits [R, C] of pooled states [R, 1, H]."""
        return cast(Tensor, self.classifier(self.dropout(cast(nn.Module, self.bert.pooler)(pooled))))


class MeanRoberta(MeanPooled, RobertaForSequenceClassification):  # type: ignore[no-untyped-call]
    """`RobertaForSequenceClassification` that pools the mean."""


class MeanXLMRoberta(MeanPooled, XLMRobertaForSequenceClassification):  # type: ignore[no-untyped-call]
    """`XLMRobertaForSequenceClassification` that pools the mean."""


class MeanCamembert(MeanPooled, CamembertForSequenceClassification):  # type: ignore[no-untyped-call]
    """`CamembertForSequenceClassification` that pools the mean."""


class MeanElectra(MeanPooled, ElectraForSequenceClassification):  # type: ignore[no-untyped-call]
    """`ElectraForSequenceClassification` that pools the mean."""


# Families whose encoder layers have BERT's shape: mean pooling can be saved as one more attention layer.
_CLASSES: dict[type[PreTrainedModel], type[MeanPooled]] = {
    BertForSequenceClassification: MeanBert,
    RobertaForSequenceClassification: MeanRoberta,
    XLMRobertaForSequenceClassification: MeanXLMRoberta,
    CamembertForSequenceClassification: MeanCamembert,
    ElectraForSequenceClassification: MeanElectra,
}
_STOCK = {pooled: stock for stock, pooled in _CLASSES.items()}


def pools_first_token(model: PreTrainedModel) -> bool:
    """Whether the model pools the first token, and could pool the mean."""
    return type(model) in _CLASSES and _POOLED_KEY not in model.config.to_dict()


def pool_mean(model: PreTrainedModel) -> None:
    """Makes a model that pools the first token pool the mean, in place.

    Where a dense layer with a tanh follows in the encoder itself (BERT's pooler), which has never seen a mean, it
    starts as (almost) a scaled copy: tanh is near linear for 0.2 x unit variance.
    """
    cast(Any, model).__class__ = _CLASSES[type(model)]
    if isinstance(model, MeanBert):
        dense = cast(nn.Linear, cast(Any, model.bert.pooler).dense)
        with torch.no_grad():
            dense.weight.copy_(0.2 * torch.eye(dense.out_features, dense.in_features))
            dense.bias.zero_()


def mean_pool(hidden: Tensor, mask: Tensor, eps: float) -> Tensor:
    """Layer-normalised masked mean [R, H] of hidden [R, L, H], with the trace of token 0 that the saved layer adds."""
    hidden = hidden.float()
    weights = mask.to(hidden.dtype)[:, :, None]  # [R, L, 1]
    mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    return F.layer_norm(_MEAN_WEIGHT * mean + hidden[:, 0], hidden.shape[-1:], eps=eps)


def _folded(model: MeanPooled, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model of the stock class with the mean as its last layer, which shares the other weights."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers += 1
    config.update({_POOLED_KEY: "mean"})
    with torch.device("meta"):  # takes no random numbers
        folded = _STOCK[type(model)](config)
    prefix, size = _pooling_layer(model), config.hidden_size
    layer = {name: torch.zeros(v.shape) for name, v in folded.state_dict().items() if name.startswith(prefix)}
    layer[f"{prefix}attention.self.value.weight"] = torch.eye(size)
    layer[f"{prefix}attention.output.dense.weight"] = _MEAN_WEIGHT * torch.eye(size)
    for norm in ("attention.output.LayerNorm.weight", "output.LayerNorm.weight"):
        layer[prefix + norm] = torch.ones(size)
    added = {name: value.to(model.device, model.dtype) for name, value in layer.items()}
    folded.load_state_dict({**weights, **added}, assign=True)
    return folded


def _pooling_layer(model: MeanPooled) -> str:
    """Prefix of the names of the weights of the layer that the mean is saved as."""
    return f"{model.base_model_prefix}.encoder.layer.{model.config.num_hidden_layers}."
