"""What help and docs say of every method: reference, loss, hyper-parameters, differences, and an example that runs."""

import dataclasses
import re

import pytest
import torch

from nlp_ssl.config import TrainConfig
from nlp_ssl.experiments.pretrain import Contrastive, MaskedWords
from nlp_ssl.method import Method
from nlp_ssl.registry import describe, get_method, list_methods
from nlp_ssl.testing import step_losses
from nlp_ssl.utils.documentation import describe_fields, describe_method

CLASSES = [*map(get_method, list_methods()), MaskedWords, Contrastive]
every_method = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)


def words(text):
    return " ".join(text.split())


@every_method
def test_the_first_line_has_title_reference_and_summary(cls):
    info = describe_method(cls)
    line = cls.__doc__.splitlines()[0]
    assert line == f"{info.title} ({info.reference}): {info.summary}" and len(line) <= 113
    assert info.summary.endswith(".")
    arxiv = re.search(r"\b(19|20)\d\d, .*arXiv:\d{4}\.\d{4,5}$", info.reference)
    assert arxiv or info.reference.endswith("not on arXiv") or info.reference == "no paper"


@every_method
def test_the_parts_are_in_order(cls):
    parts = ["\n\nLoss: ", "\n\nArgs:\n", "\n\nDiffers from the paper: ", "\n\nExample:\n"]
    places = [cls.__doc__.find(part) for part in parts if dataclasses.fields(cls) or "Args" not in part]
    assert -1 not in places and places == sorted(places)


@every_method
def test_the_loss_names_its_weights_in_plain_characters(cls):
    info = describe_method(cls)
    assert re.search(r"mean|sum", info.loss) and info.loss.isascii() and cls.__doc__.isascii()
    weights = [field.name for field in info.fields if re.fullmatch(r"(\w+_)?weight", field.name)]
    assert [name for name in weights if not re.search(rf"\b{name}\b", info.loss)] == []


@every_method
def test_the_docstring_names_no_field_that_is_not_there(cls):
    """Words in backticks in the text of a method are its fields, or names that are listed here."""
    others = {"student", "fit", "eval_ema_decay", "functional.label_gradient"}
    text = re.sub(r"Args:\n.*?\n\n", "", cls.__doc__, flags=re.DOTALL)
    known = {field.name for field in dataclasses.fields(cls)} | others
    assert {re.split(r"=", name)[0] for name in re.findall(r"`([^`]+)`", text)} <= known


@pytest.mark.parametrize("cls", [*CLASSES, TrainConfig], ids=lambda cls: cls.__name__)
def test_every_field_has_a_sentence(cls):
    infos = describe_fields(cls)
    assert [info.name for info in infos] == [field.name for field in dataclasses.fields(cls)]
    for info in infos:
        assert 3 <= len(info.sentence.split()) and len(info.sentence) <= 130, info
        assert info.sentence[0].islower() and info.sentence[-1] != "." and words(info.sentence) == info.sentence, info
    assert len({info.sentence for info in infos}) == len(infos)


@pytest.mark.parametrize(
    "cls", [*(cls for cls in CLASSES if dataclasses.fields(cls)), TrainConfig], ids=lambda c: c.__name__
)
def test_the_docstring_lists_every_field(cls):
    """With the defaults that the class has, for images too, and the sentence of the field."""
    args = cls.__doc__.partition("\n\nArgs:\n")[2].partition("\n\n")[0]
    entries = [words(entry) for entry in re.split(r"\n(?=    \w)", args)]
    images = cls.for_images() if issubclass(cls, Method) else None
    assert len(entries) == len(dataclasses.fields(cls))
    for entry, info in zip(entries, describe_fields(cls), strict=True):
        value = cls().__dict__[info.name]
        assert entry.startswith(f"{info.name} (") and entry.endswith(f"): {info.sentence}")
        assert re.search(rf"default {re.escape(str(value))}(,|\))", entry)
        if images is not None and (other := images.__dict__[info.name]) != value:
            assert f", for images {other})" in entry


@every_method
def test_it_says_how_it_differs_from_the_paper(cls):
    info = describe_method(cls)
    assert len(info.differences.split()) > 5 or info.reference == "no paper"


@every_method
def test_the_example_runs(cls):
    """Two lines; what they make is a method with options that somebody chose, and it trains."""
    lines = describe_method(cls).example.splitlines()
    names = {}
    assert len(lines) == 2
    exec("\n".join(lines), names)
    method = names["method"]
    assert type(method) is cls and (method != cls() or not dataclasses.fields(cls))
    if isinstance(method, Method):
        views = ["x", *(view for view in method.wanted_views() if view != "x")]
        generator = torch.Generator().manual_seed(0)
        logits = {view: torch.randn(2 if view[0] == "x" else 5, 3, generator=generator) for view in views}
        losses = step_losses(method, logits, torch.tensor([0, 1]), progress=0.5)
        assert losses and all(loss.isfinite() for loss in losses.values())


def test_a_method_is_described_by_its_name():
    info = describe("uda")
    assert info == describe_method(get_method("uda")) and info.title == "UDA"
    assert info.reference == "Xie et al. 2020, arXiv:1904.12848" and info.loss.startswith("sup + weight * mean_N")
    assert {field.name for field in info.fields} >= {"threshold", "temperature", "tsa"}
    (tsa,) = (field for field in info.fields if field.name == "tsa")
    assert tsa.choices == ("none", "linear", "log", "exp") and tsa.default == "none" and tsa.range is None
