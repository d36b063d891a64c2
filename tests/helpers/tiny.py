"""Tiny nets and tasks for tests: no download, fractions of a second per step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from images import load_images
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from nlp_ssl import TrainConfig, fit
from nlp_ssl.augment.base import Augment
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import Table, table_of
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.method import Method
from nlp_ssl.nets.text import Pooling, load_text_net
from nlp_ssl.ops import random
from nlp_ssl.task import TFIDF, Task, image_task, text_task
from nlp_ssl.training.view_strength import Strongest

GOOD = "good great fun joy fine warm bright clever".split()
BAD = "bad dull waste slow poor cold bleak clumsy".split()
FILLER = "the a film plot scene actor with very and of in it story music end".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# Rates large enough that a wrong gradient shows after a step.
FAST = TrainConfig(
    max_steps=3,
    batch_size=4,
    unlabeled_ratio=2,
    learning_rate=1e-3,
    warmup_steps=0.0,
    head_learning_rate=1e-3,
    lr_scheduler_type="constant",
    mixed_precision="no",
    warm_start="none",
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer over a handful of words, with BERT's special tokens."""
    words = SPECIAL + GOOD + BAD + FILLER
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def tiny_bert(
    folder: Path, dropout: float = 0.1, classes: int = 2, names: Sequence[str] = ("neg", "pos"), positions: int = 64
) -> Path:
    """A random two-layer BERT of width 32 with its tokenizer, saved to a folder.

    Its last layer is for classes of these names where there are as many, so that tasks of these classes start with it.
    """
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL + GOOD + BAD + FILLER),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=classes,
    )
    if len(names) == classes:
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def saved_classifier(folder: Path, classes: Sequence[str], texts: Sequence[str]) -> Path:
    """A classifier as `train` leaves it, untrained, whose answers to the texts differ, in the sub-folder "out"."""
    net = load_text_net(
        str(tiny_bert(folder / "model", classes=len(classes), names=classes)), classes, pooling="mean"
    ).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(100)
        net.classifier.bias.sub_(logits_of_texts(net, texts, 64).mean(0))
    (folder / "out").mkdir()
    net.save(folder / "out")
    return folder / "out"


def tiny_texts(rows: int, seed: int) -> tuple[list[str], list[str]]:
    """Distinct texts of filler words with one class's words among them, and their labels "neg" and "pos"."""
    rng = np.random.default_rng(seed)
    texts: dict[str, str] = {}
    while len(texts) < rows:
        label = ("neg", "pos")[len(texts) % 2]
        marks = rng.choice(GOOD if label == "pos" else BAD, rng.integers(1, 4))
        words = rng.permutation([*marks, *rng.choice(FILLER, rng.integers(3, 12))])
        texts.setdefault(" ".join(words), label)
    return list(texts), list(texts.values())


def tiny_files(folder: Path) -> Path:
    """A model, and files of labeled rows, of a pool and of test rows: "model", "l.csv", "u.txt", "noisy.csv", "t.csv".

    "noisy.csv" labels the last twenty texts of the pool and twenty others.
    """
    tiny_bert(folder / "model", names=("other", "classes"))  # a task starts with a last layer of its own
    texts, labels = tiny_texts(140, seed=5)
    rows = [f"{t},{y}" for t, y in zip(texts, labels, strict=True)]
    for name, part in (("l.csv", rows[:16]), ("noisy.csv", rows[60:100]), ("t.csv", rows[100:])):
        (folder / name).write_text("\n".join(["text,label", *part]))
    (folder / "u.txt").write_text("\n".join(texts[16:80]))
    return folder


def tiny_tables(labeled: int = 16, unlabeled: int = 96, test: int = 40) -> tuple[Table, Table, Table]:
    """(labeled, unlabeled, test) with no text in two of them; the pool's labels are hidden truth."""
    texts, labels = tiny_texts(labeled + unlabeled + test, seed=1)
    cuts = [0, labeled, labeled + unlabeled, labeled + unlabeled + test]
    parts = [table_of(texts[a:b], labels[a:b], source=f"part {a}") for a, b in zip(cuts, cuts[1:], strict=False)]
    return parts[0], parts[1], parts[2]


def tiny_task(
    folder: Path,
    dropout: float = 0.1,
    pooling: Pooling = "mean",
    strong: Augment | Strongest = TFIDF,
    unlabeled: int = 96,
) -> Task:
    """A text task on a tiny BERT; model and token cache lie below `folder`."""
    model = folder / "model"
    if not model.exists():
        tiny_bert(model, dropout)
    labeled, pool, test = tiny_tables(unlabeled=unlabeled)
    return text_task(
        build_data(labeled, pool, None, test),
        str(model),
        pooling=pooling,
        strong=strong,
        max_length=24,
        cache_dir=folder / "cache",
    )


def tiny_images() -> Task:
    """An image task on a few of the 8 x 8 digits and the smallest Wide-ResNet, without test rows."""
    task = image_task(load_images("digits", labels_per_class=2, seed=0, pool_size=96), "wrn-10-1")
    return replace(task, data=replace(task.data, test=task.data.test[:0]))


def trained(
    method: Method, task: Task, config: TrainConfig = FAST, folder: Path | None = None
) -> dict[str, torch.Tensor]:
    """Weights after a short run; metrics of every step go to the folder, if one is given."""
    settings = replace(config, logging_steps=1)
    module = fit(method, task, settings, folder=folder).module
    return {name: value.clone() for name, value in module.state_dict().items()}


def neutral_draws(patch: pytest.MonkeyPatch) -> None:
    """Random draws inside steps become the same whatever the rows' order and number: no mixing, constant noise."""
    patch.setattr(random, "beta", lambda alpha, n, like: like.new_ones(n))
    patch.setattr(random, "permutation", lambda n, like: torch.arange(n))
    patch.setattr(random, "normal", torch.ones_like)
    patch.setattr(random, "classes", lambda p: p.argmax(-1))
    patch.setattr(random, "integer", lambda n: 0)
    patch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)  # heads have one of their own


def difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Largest difference of two nets' weights, leaving out biases of keys and heads that only one of them has.

    Attention does not change when all keys move alike: their gradient is rounding noise, which Adam makes a whole step.
    """
    assert all(k.startswith("extra.") for k in a.keys() ^ b.keys())
    shared = [k for k in a if k in b and not k.endswith(".key.bias")]
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in shared)


def tiny_label_sets(rows: int, seed: int) -> tuple[list[str], list[list[str]]]:
    """Distinct texts of filler words with words of either, both or none of the classes, and these classes' names."""
    rng = np.random.default_rng(seed)
    texts: dict[str, list[str]] = {}
    while len(texts) < rows:
        names = [name for name in ("bad", "good") if rng.integers(2)]
        marks = [word for name in names for word in rng.choice({"bad": BAD, "good": GOOD}[name], 2)]
        texts.setdefault(" ".join(rng.permutation([*marks, *rng.choice(FILLER, rng.integers(4, 9))])), names)
    return list(texts), list(texts.values())


def tiny_multilabel_task(folder: Path, labeled: int = 24, unlabeled: int = 48, test: int = 40) -> Task:
    """A text task whose rows have several labels; of the first row one is not known."""
    model = folder / "model"
    if not model.exists():
        tiny_bert(model, dropout=0.0, names=("bad", "good"))
    texts, names = tiny_label_sets(labeled + unlabeled + test, seed=3)
    names[0] = ["?bad", "good"]
    pool = slice(labeled, labeled + unlabeled)
    parts = (
        table_of(texts[:labeled], names[:labeled]),
        table_of(texts[pool]),
        table_of(texts[pool.stop :], names[pool.stop :]),
    )
    data = build_data(parts[0], parts[1], None, parts[2])
    return text_task(
        data, str(model), pooling="mean", strong=TfidfReplace(0.2), max_length=24, cache_dir=folder / "cache"
    )
