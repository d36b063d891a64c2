"""Text classifiers: any `AutoModelForSequenceClassification`, optionally with mean pooling that stays openable."""

import copy
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.mean_pooling import MeanBert, MeanPooled, mean_pool, pool_mean, pools_first_token
from nlp_ssl.nets.opening import (
    ask,
    check_answer,
    check_labels,
    entries,
    open_config,
    open_tokenizer,
    opening,
    positions,
    quiet,
)
from nlp_ssl.ops import random
from nlp_ssl.types import Edit, Kind

log = logging.getLogger("nlp_ssl")
Pooling = Literal["auto", "mean", "stock"]

# Families whose layers take a mask that is added to the attention scores, so that an edit may widen it half-way.
_ADDED_MASKS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet")
SINGLE_LABEL: Final = "single_label_classification"  # problem_type in config.json
MULTI_LABEL: Final = "multi_label_classification"
PAIRS = "nlp_ssl_pairs"  # in config.json of a model that was trained on pairs of texts
_HIDDEN_SHARE = 0.15  # of a text's own tokens, in masked language modelling
_GROUP_OVERHEAD = 96  # tokens of padding that one more forward call on a CPU costs about as much as


class TextNet(Module):
    """A transformer encoder with a linear classifier on pooled features.

    `pooling="stock"` pools as the model does that is handed over (the first token, mostly). `pooling="mean"` takes the
    masked mean of the last layer, layer-normalised, through the stock head; the saved folder still opens with
    `AutoModelForSequenceClassification` and gives the same logits (`MeanPooled`). "auto" takes the mean where it can.
    """

    natural_start = "contrastive"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, pooling: Pooling = "auto") -> None:
        super().__init__()
        if pooling != "stock" and pools_first_token(model):
            pool_mean(model)
        self.mean_pooling = isinstance(model, MeanPooled)
        if pooling == "mean" and not self.mean_pooling:
            raise ConfigError(221, f"mean pooling is not available for {model.config.model_type}: use --pooling stock")
        self.tokenizer = tokenizer
        self.model = cast(Any, model)
        self._path, classifier = final_linear(model)
        self.classifier: nn.Linear = classifier
        model.set_submodule(self._path, nn.Identity())
        named = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        self._special = sorted({tokenizer.pad_token_id, *named} - {None})
        self._causal = any(vars(m).get("is_causal") is True for m in model.modules())
        # Pairwise losses work on features without this dropout: it would drown the few labels in noise.
        self._dropout_last = isinstance(model, MeanBert)

    def embed(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Features [R, D] that the final linear layer sees, before the last dropout where that can be told apart."""
        mask = inputs["attention_mask"]
        if edit is not None and self._causal:
            raise ConfigError(
                276, "this method changes what is inside the net, which needs an encoder: choose another --model"
            )
        if edit is not None or mask.device.type != "cpu":
            return self._encode(inputs, edit)
        lengths = mask.sum(1).numpy()
        groups = length_groups(lengths)
        if len(groups) == 1:
            return self._encode(inputs, None)
        parts = [self._encode(self.trim({k: v[g] for k, v in inputs.items()}, lengths[g]), None) for g in groups]
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(groups), kind="stable"))]

    def forward(self, inputs: dict[str, Tensor], edit: Edit | None = None) -> Tensor:
        """Logits and head outputs; of masked inputs the loss of the hidden tokens and their number [R, 2]."""
        return self._recover(inputs) if "hidden" in inputs else super().forward(inputs, edit)

    def masked(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hides 15 % of each row's own tokens (Devlin et al. 2019, arXiv:1810.04805), one at least where there is one.

        Of these 80 % become the mask token, 10 % any token and 10 % stay; "hidden" [R, L] holds what they were or -1.

        Raises:
            ConfigError: the tokenizer has no mask token, or word embeddings are not as wide as the layers.
        """
        mask_id, ids = self.tokenizer.mask_token_id, inputs["input_ids"]
        width = self.model.get_input_embeddings().weight.shape[1]
        if mask_id is None or width != self.model.config.hidden_size:
            why = "its tokenizer has no mask token" if mask_id is None else "its word embeddings are not as wide as it"
            raise ConfigError(273, f"this model cannot learn masked tokens, {why}: set the weight of their loss to 0")
        content = self._content(inputs) > 0
        draw = random.uniform(ids).masked_fill(~content, 2.0)
        chosen = content & ((draw < _HIDDEN_SHARE) | (draw == draw.amin(1, keepdim=True)))
        kind = random.uniform(ids)
        anything = random.integers(len(self.tokenizer), ids)
        changed = torch.where(kind < 0.8, mask_id, torch.where(kind < 0.9, anything, ids))
        return {
            **inputs,
            "input_ids": torch.where(chosen, changed, ids),
            "hidden": torch.where(chosen, ids, -1),
        }

    def _recover(self, inputs: dict[str, Tensor]) -> Tensor:
        """Mean loss of each row's hidden tokens under the word embeddings as output layer, and their number [R, 2]."""
        inputs = dict(inputs)
        hidden = inputs.pop("hidden")
        states = self.model.base_model(**inputs).last_hidden_state  # [R, L, H]
        rows, places = (hidden >= 0).nonzero(as_tuple=True)
        words = self.model.get_input_embeddings().weight
        scores = F.linear(states[rows, places], words).float()  # [T, V]
        loss = F.cross_entropy(scores, hidden[rows, places], reduction="none")
        sums = loss.new_zeros(len(hidden)).index_add(0, rows, loss)
        count = (hidden >= 0).sum(1)
        return torch.stack([sums / count.clamp(min=1), count.to(sums.dtype)], 1)

    def head(self, features: Tensor) -> Tensor:
        """Logits [R, C]."""
        if self._dropout_last:
            features = self.model.dropout(features)
        return cast(Tensor, self.classifier(features))

    def _encode(self, inputs: dict[str, Tensor], edit: Edit | None) -> Tensor:
        inputs = dict(inputs)
        content = None if edit is None else self._content(inputs)
        if edit is not None and edit.layer == 0:
            words = self.model.get_input_embeddings()(inputs.pop("input_ids"))  # [R, L, H]
            inputs["inputs_embeds"], mask = edit(words, inputs["attention_mask"], content)
            inputs["attention_mask"] = inputs["attention_mask"] if mask is None else mask
        with self._edited_layer(edit, inputs["attention_mask"], content) as masks:
            if not self.mean_pooling:
                return cast(Tensor, self.model(**inputs).logits)
            hidden = self.model.base_model(**inputs).last_hidden_state  # [R, L, H]
        pooled = mean_pool(hidden, masks[-1], self.model.config.layer_norm_eps)[:, None]  # [R, 1, H]
        if self._dropout_last:
            return cast(Tensor, self.model.bert.pooler(pooled))
        return cast(Tensor, self.model.classifier(pooled))

    @contextmanager
    def _edited_layer(self, edit: Edit | None, mask: Tensor, content: Tensor | None) -> Iterator[list[Tensor]]:
        """Applies an edit with `layer` k > 0 to the output of the k-th transformer layer.

        Yields the masks [R, L] in use; after the pass the last one is what pooling goes by. A mask that the edit hands
        back replaces the attention mask of the layers above.
        """
        masks = [mask]
        if edit is None or edit.layer == 0:
            yield masks
            return

        def replace(module: nn.Module, inputs: object, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            changed, wider = edit(hidden, mask, content)
            if wider is not None and self.model.config.model_type not in _ADDED_MASKS:
                raise ConfigError(
                    277, f"{self.model.config.model_type} cannot mix hidden layers: use --mixer embedding"
                )
            if wider is not None:
                masks.append(wider)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        def attend(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if len(masks) == 1:
                return None
            seen = self._attention_mask(masks[-1], args[0].dtype)
            if "attention_mask" in kwargs:
                return args, {**kwargs, "attention_mask": seen}
            return (args[0], seen, *args[2:]), kwargs

        layers = self._layers()
        if not 1 <= edit.layer <= len(layers):
            raise ConfigError(222, f"edit layer {edit.layer} does not exist: the encoder has layers 1..{len(layers)}")
        handles = [layers[edit.layer - 1].register_forward_hook(replace)]
        handles += [layer.register_forward_pre_hook(attend, with_kwargs=True) for layer in layers[edit.layer :]]
        try:
            yield masks
        finally:
            for handle in handles:
                handle.remove()

    def _attention_mask(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """A mask [R, L] as the encoder's layers take it: added to the attention scores [R, 1, 1, L]."""
        if "flash" in str(self.model.config._attn_implementation):
            return mask
        return (1 - mask.to(dtype))[:, None, None, :] * torch.finfo(dtype).min

    def _content(self, inputs: dict[str, Tensor]) -> Tensor:
        """1 for the text's own tokens, 0 for special ones and padding [R, L]."""
        special = torch.tensor(self._special, device=inputs["input_ids"].device)
        return inputs["attention_mask"] * ~torch.isin(inputs["input_ids"], special)

    def room(self, inputs: dict[str, Tensor]) -> Tensor:
        """1 at the word embeddings of the text's own tokens [R, L, H]: noise may act there."""
        width = self.model.get_input_embeddings().weight.shape[1]
        return self._content(inputs).float()[:, :, None].expand(-1, -1, width)

    def depth(self) -> int:
        """Number of transformer layers."""
        return len(self._layers())

    def _layers(self) -> nn.ModuleList:
        depth = self.model.config.num_hidden_layers
        for module in self.model.base_model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
        raise ConfigError(223, f"no list of {depth} layers found in {type(self.model).__name__}")

    def trim(self, inputs: dict[str, Tensor], lengths: np.ndarray) -> dict[str, Tensor]:
        """The inputs without columns that are padding in every row."""
        longest = int(lengths.max())
        return {k: v[:, :longest] for k, v in inputs.items()}

    def cost(self, inputs: dict[str, Tensor], lengths: np.ndarray) -> int:
        """Tokens, padding included, that a pass over rows of these lengths computes."""
        groups = length_groups(lengths) if inputs["input_ids"].device.type == "cpu" else [np.arange(len(lengths))]
        return sum(len(g) * int(lengths[g].max()) for g in groups)

    def layers(self) -> list[str]:
        """Prefixes of parameter names: embeddings first, then every encoder layer."""
        try:
            layers = self._layers()
        except ConfigError:  # layers that share their weights (ALBERT) have one rate
            return []
        path = next(name for name, module in self.named_modules() if module is layers)
        embeddings = f"model.{self.model.base_model_prefix}.embeddings"
        return [embeddings, *(f"{path}.{i}." for i in range(len(layers)))]

    def longest(self) -> int | None:
        """Tokens the model has positions for; None where positions are not learned."""
        return positions(self)

    @property
    def kind(self) -> Kind:
        """Whether the net is single-label or multi-label."""
        return kind_of(self.model.config)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return tuple(class_names(self.model.config))

    def head_prefixes(self) -> tuple[str, ...]:
        """The classifier, and the stock head's own layers: what lies outside the encoder starts untrained."""
        outside = [name for name, _ in self.model.named_children() if name != self.model.base_model_prefix]
        return ("classifier.", *(f"model.{name}." for name in outside))

    def whole(self) -> PreTrainedModel:
        """A copy of the model with its last layer, without the heads of a method."""
        model = copy.deepcopy(self.model)
        model.set_submodule(self._path, copy.deepcopy(self.classifier))
        return cast(PreTrainedModel, model)

    def save(self, folder: Path) -> None:
        """Writes model, tokenizer and label names; opens with `AutoModelForSequenceClassification`."""
        with quiet():
            self.whole().save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def kind_of(config: PreTrainedConfig) -> Kind:
    """Whether a model is single-label or multi-label."""
    return "multi-label" if config.problem_type == MULTI_LABEL else "single-label"


def class_names(config: PreTrainedConfig) -> list[str]:
    """What a model calls its classes, in the order of its outputs."""
    names = cast(dict[int, str], config.id2label)
    return [str(names[i]) for i in range(len(names))]  # a file may list them in another order


def set_task(config: PreTrainedConfig, kind: Kind, pairs: bool) -> None:
    """Notes what a model is trained for, in place of whatever an earlier training noted."""
    config.problem_type = MULTI_LABEL if kind == "multi-label" else SINGLE_LABEL
    vars(config).pop(PAIRS, None)
    if pairs:
        config.update({PAIRS: True})


def of_pairs(config: PreTrainedConfig) -> bool:
    """Whether a model was trained on pairs of texts."""
    return bool(config.to_dict().get(PAIRS))


def check_pairs(config: PreTrainedConfig, given: bool) -> None:
    """Refuses single texts where a model was trained on pairs, and warns of pairs where it may not have been.

    Raises:
        ConfigError: there is no column of second texts.
    """
    if not given and of_pairs(config):
        raise ConfigError(
            452, "this model was trained on pairs of texts: give each text its second one (of files: --pair-column)"
        )
    if given and not of_pairs(config):
        log.warning("this model does not say that it was trained on pairs of texts: second texts may mislead it")


def load_text_net(
    name: str, classes: Sequence[str] | None = None, *, pooling: Pooling = "auto", dropout: float | None = None
) -> TextNet:
    """A pre-trained encoder with a classifier over `classes`; without `classes`, the classifier saved with it.

    A classifier saved with the encoder stays where it knows these very classes, by their names and in any order, and
    "auto" then pools as it was trained; otherwise the last layer starts anew, and the log says so.
    Only safetensors weights are read, no remote code runs, and weights are float32 whatever the file holds.

    Raises:
        ConfigError: the model cannot be found or read, or its tokenizer does not fit it.
    """

    def refusal(reason: str) -> ConfigError:
        if (Path(name) / "config.json").is_file():
            return ConfigError(
                220, f"cannot open the model in {name}: it is damaged or incomplete; save or train it again [{reason}]"
            )
        return ConfigError(
            220,
            f"cannot open the model {name!r}: neither a folder with safetensors weights nor a reachable hub model "
            f"(check the spelling; offline, give a folder and set HF_HUB_OFFLINE=1) [{reason}]",
        )

    with opening(refusal):
        config = open_config(name, AutoModelForSequenceClassification)
        check_labels(config)
        known = class_names(config)
        _name_classes(config, known if classes is None else classes)
        if dropout is not None:
            supported = config.to_dict()
            for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
                if key in supported:
                    config.update({key: dropout})
        tokenizer = open_tokenizer(name)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if not _weights_fit(model, loading, trained=classes is None):
        raise ConfigError(228, f"the model in {name!r} is incomplete: its weights and config.json do not fit together")
    rows = model.get_input_embeddings().weight.shape[0]
    if entries(tokenizer) > rows:
        raise ConfigError(224, f"the tokenizer of {name!r} has {entries(tokenizer)} entries, the model only {rows}")
    if tokenizer.pad_token_id is None:
        raise ConfigError(225, f"the tokenizer of {name!r} has no pad token: set one and save it with the model")
    kept = classes is None or _place_head(model, name, known, list(classes), loading)
    with opening(refusal):
        first = ask(lambda inputs: model(**inputs).logits, tokenizer, of_pairs(config))
        check_answer(first, len(class_names(config)))
    # A classifier that is kept was trained on features pooled as the architecture does it: others would make it wrong.
    return TextNet(model, tokenizer, "stock" if kept and pooling == "auto" else pooling)


def _weights_fit(model: PreTrainedModel, loading: Mapping[str, Any], trained: bool) -> bool:
    """Whether the weights are those of the model that config.json describes; if it is not `trained`, of its encoder.

    An encoder comes without a classifier, often without a pooler, and may have had another head.
    """
    missing, other = loading["missing_keys"], {name for name, *_ in loading["mismatched_keys"]}
    encoder = f"{model.base_model_prefix}."
    if trained:
        layers_left = any(re.search(r"\.\d+\..*\.weight$", name) for name in loading["unexpected_keys"])
        return not (missing or other or layers_left)
    return not any(n.startswith(encoder) and not n.startswith(f"{encoder}pooler.") for n in {*missing, *other})


def _name_classes(config: Any, classes: Sequence[str]) -> None:
    config.id2label = dict(enumerate(classes))
    config.label2id = {label: i for i, label in enumerate(classes)}


def _place_head(model: Any, name: str, known: list[str], wanted: list[str], loading: Mapping[str, Any]) -> bool:
    """Puts the rows of a saved last layer where its classes are wanted; where it knows others, makes a new one.

    Returns whether the saved one is kept.
    """
    path, linear = final_linear(model)
    if f"{path}.weight" in loading["missing_keys"]:
        return False
    if known == wanted:
        return True
    if sorted(known) == sorted(wanted):
        rows = torch.tensor([known.index(label) for label in wanted])
        with torch.no_grad():
            for values in linear.parameters():
                values.copy_(values[rows])
        return True
    if len(known) == len(wanted):  # of another number the library has made it anew already
        fresh = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
        model.set_submodule(path, fresh)
        model._init_weights(fresh)
    _say_once(
        f"the last layer of {name} is for the classes {_shown(known)}, here they are {_shown(wanted)}: it starts anew"
    )
    return False


@lru_cache
def _say_once(text: str) -> None:
    """A line in the log, once for all nets of a run."""
    log.info(text)


def load_trained(folder: Path, kinds: tuple[Kind, ...] = ("single-label",)) -> TextNet:
    """The classifier that a run left in a folder, to predict with; `kinds` says what labels the caller can take.

    Raises:
        ConfigError: the model is multi-label, where a single-label one is needed.
        DataError: the folder holds no whole model.
    """
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise DataError(123, f"{folder}: no whole trained model there ({name} is missing)")
    net = load_text_net(str(folder)).eval()
    if net.kind not in kinds:
        raise ConfigError(478, f"{folder} is a multi-label classifier; a single-label one is needed here")
    return net


def load_teacher(name: str, like: TextNet) -> TextNet:
    """A saved classifier as the teacher of a net like `like`: same tokens, same classes, any size.

    Raises:
        ConfigError: it cannot be opened, reads texts as other tokens or shorter, or knows other classes.
    """
    teacher = load_text_net(name)
    probe = "A probe: Capitals, 42 numbers & n\u00e4ive accents."
    if teacher.tokenizer.get_vocab() != like.tokenizer.get_vocab() or (
        teacher.tokenizer(probe)["input_ids"] != like.tokenizer(probe)["input_ids"]
    ):
        raise ConfigError(235, f"the teacher {name!r} has another tokenizer than the student: take one of its family")
    known, wanted = (class_names(net.model.config) for net in (teacher, like))
    if known != wanted:
        raise ConfigError(
            238, f"the teacher {name!r} knows the classes {_shown(known)}, the student {_shown(wanted)}, in this order"
        )
    longest, needed = teacher.longest(), min(like.tokenizer.model_max_length, like.longest() or 10**9)
    if longest is not None and longest < needed:
        raise ConfigError(
            239,
            f"the teacher {name!r} has positions for {longest} tokens, not {needed}: lower max_length",
        )
    return teacher


def _shown(classes: list[str]) -> str:
    return ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")


def length_groups(lengths: np.ndarray, overhead: int = _GROUP_OVERHEAD) -> list[np.ndarray]:
    """Row numbers in groups of like length, so that padding saved outweighs `overhead` tokens per extra group."""
    order = np.argsort(lengths, kind="stable")

    def split(rows: np.ndarray) -> list[np.ndarray]:
        sizes = lengths[rows]  # ascending
        n = len(rows)
        cuts = np.arange(1, n)
        saved = cuts * (sizes[-1] - sizes[cuts - 1]) if n > 1 else np.zeros(0)
        if not len(saved) or saved.max() <= overhead:
            return [rows]
        cut = int(cuts[saved.argmax()])
        return split(rows[:cut]) + split(rows[cut:])

    return split(order)


def final_linear(model: PreTrainedModel) -> tuple[str, nn.Linear]:
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels
    ]
    if not layers:
        raise ConfigError(226, f"{type(model).__name__} has no linear layer with {model.config.num_labels} outputs")
    return layers[-1]
