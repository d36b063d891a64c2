"""Classifiers for scripts with a `transformers.Trainer`."""

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.utils.ranges import check


def load_classifier(
    name: str | Path,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    label2id: Mapping[str, int] | None = None,
) -> PreTrainedModel:
    """A pre-trained encoder with a last layer for these labels that suits few labels: it pools the mean.

    `AutoModelForSequenceClassification` pools the first token, which encoders of sentences have not trained: a few
    labels then teach it next to nothing. This one is of a sub-class of the same architecture (`MeanPooled`), for
    `Trainer` and `SSLTrainer` alike. What it saves opens with `AutoModelForSequenceClassification` and gives the same
    logits. A saved classifier of these very labels stays as it is, and so do architectures that are not of BERT's
    family (`model.config.model_type` bert, roberta, xlm-roberta, camembert, electra).

    Args:
        name: folder or hub name of an encoder.
        num_labels: how many labels there are, where they have no names. Without any of the three the folder must hold
            a trained classifier.
        id2label: the name of each label, from 0 on.
        label2id: the same the other way round.

    Raises:
        ConfigError: the model cannot be opened, or the arguments contradict each other.

    Example:
        from nlp_ssl import load_classifier

        model = load_classifier("bundled", id2label={0: "neg", 1: "pos"})
        print(model.config.label2id)
    """
    return load_text_net(encoder_name(str(name)), _labels(num_labels, id2label, label2id)).whole()


def _labels(
    num_labels: int | None, id2label: Mapping[int, str] | None, label2id: Mapping[str, int] | None
) -> list[str] | None:
    """Names of the labels in order; None where none were given."""
    names = None if label2id is None else {int(number): name for name, number in label2id.items()}
    if id2label is not None:
        other, names = names, {int(number): name for number, name in id2label.items()}
        if other not in (None, names):
            raise ConfigError(489, "id2label and label2id give the labels different numbers: give one of them")
    if num_labels is not None:
        check(num_labels, "num_labels", 1, 1e6)
    if names is None:
        return None if num_labels is None else [f"LABEL_{i}" for i in range(num_labels)]
    if num_labels not in (None, len(names)) or sorted(names) != list(range(len(names))):
        many = len(names) if num_labels is None else num_labels
        raise ConfigError(489, f"labels have the numbers {sorted(names)}, not 0 to {many - 1}: number them from 0 on")
    return [names[i] for i in range(len(names))]
