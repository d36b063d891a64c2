"""Text nets: padding, pooling that stays openable, edits of hidden representations, modes."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import BAD, FILLER, GOOD, SPECIAL, tiny_images, tiny_task, tiny_tokenizer
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    pipeline,
)

from nlp_ssl import TrainConfig, fit
from nlp_ssl.errors import ConfigError
from nlp_ssl.methods import FixMatch
from nlp_ssl.nets import text as text_module
from nlp_ssl.nets.base import Net
from nlp_ssl.nets.text import TextNet, length_groups, load_text_net
from nlp_ssl.ops.mixing import Blend
from nlp_ssl.types import Batch

VOCABULARY = SPECIAL + GOOD + BAD + FILLER
CLASSES = ["bad", "so-so", "good"]
SHAPE = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
FOLDABLE = {
    "bert": BertConfig(**SHAPE),
    "roberta": RobertaConfig(**SHAPE, type_vocab_size=1),
    "electra": ElectraConfig(**SHAPE, embedding_size=16),
}
STOCK = {
    "distilbert": DistilBertConfig(vocab_size=len(VOCABULARY), dim=32, n_layers=2, n_heads=2, hidden_dim=64,
                                   max_position_embeddings=64, pad_token_id=0),
    "mpnet": MPNetConfig(**SHAPE),
    "modernbert": ModernBertConfig(**SHAPE, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
                                   attn_implementation="eager"),
}  # fmt: skip
FAMILIES = {**FOLDABLE, **STOCK}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random encoder of each family, saved without a classifier of ours."""
    made = {}
    for name, config in FAMILIES.items():
        torch.manual_seed(3)
        made[name] = tmp_path_factory.mktemp(name)
        model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))  # norms and biases too are not what they start as
        model.save_pretrained(made[name])
        tiny_tokenizer().save_pretrained(made[name])
    return made


@pytest.fixture
def net(folders):
    return load(folders, "bert")


def load(folders, family, **options):
    torch.manual_seed(5)
    found = load_text_net(str(folders[family]), CLASSES, **options)
    nn.init.normal_(found.classifier.weight)
    return found.eval()


def inputs(lengths=(12, 5, 3, 9, 7), width=None):
    """Rows of random words between [CLS] and [SEP], zero-padded to `width` columns."""
    rng = np.random.default_rng(0)
    width = width or max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.from_numpy(np.r_[2, rng.integers(5, len(VOCABULARY), n - 2), 3])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def batch(lengths=(12, 5, 3, 9, 7, 4)):
    sizes, empty = np.array(lengths, dtype=np.int32), torch.zeros(0)
    rows = {"x": slice(0, 2), "u_w": slice(2, 4), "u_s": slice(4, 6)}
    return Batch(inputs=inputs(lengths), lengths=sizes, rows=rows, y=empty, w=empty, id={}, keys={}, true_labels=empty)


def stored(folder):
    """The saved folder as any user of transformers opens it."""
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


# --- padding ---


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_padding_changes_no_logit(folders, family):
    model = load(folders, family)
    plain = model(inputs())
    assert torch.allclose(model(inputs(width=40)), plain, atol=1e-5)
    for row, n in enumerate((12, 5, 3, 9, 7)):  # and neither do the other rows of a batch
        alone = {k: v[row : row + 1, :n] for k, v in inputs().items()}
        assert torch.allclose(model(alone), plain[row : row + 1], atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@torch.no_grad()
def test_grouping_by_length_changes_no_logit(folders, family, monkeypatch):
    model = load(folders, family)
    monkeypatch.setattr(text_module, "length_groups", lambda lengths: [np.arange(len(lengths))])
    whole = model(inputs())
    monkeypatch.setattr(text_module, "length_groups", lambda lengths: length_groups(lengths, overhead=0))
    assert len(length_groups(np.array([12, 5, 3, 9, 7]), overhead=0)) == 5
    assert torch.allclose(model(inputs()), whole, atol=1e-5)


@pytest.mark.parametrize("overhead", [0, 10, 96, 10**6])
def test_groups_hold_every_row_once_and_cost_no_more(overhead):
    lengths = np.random.default_rng(0).integers(3, 128, 40)
    groups = length_groups(lengths, overhead)
    assert sorted(np.concatenate(groups)) == list(range(40))
    cost = sum(len(g) * lengths[g].max() + overhead for g in groups)
    assert cost <= 40 * lengths.max() + overhead
    assert len(length_groups(np.full(40, 17), overhead)) == 1


def test_gradients_pass_through_groups(net, monkeypatch):
    monkeypatch.setattr(text_module, "length_groups", lambda lengths: length_groups(lengths, overhead=0))
    net(inputs()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for n, p in net.named_parameters() if not n.endswith("key.bias"))


# --- pooling and saving ---


@torch.no_grad()
def test_mean_pooling_is_a_masked_mean(folders):
    """LayerNorm of 64 x (mean of the tokens that are no padding) + the first token, for a batch with padding."""
    model = load(folders, "electra")
    data = inputs()
    hidden = model.model.base_model(**data).last_hidden_state
    rows = []
    for row, n in enumerate((12, 5, 3, 9, 7)):
        mean = hidden[row, :n].mean(0)
        v = 64 * mean + hidden[row, 0]
        rows.append((v - v.mean()) / (v.var(unbiased=False) + model.model.config.layer_norm_eps).sqrt())
    pooled = torch.stack(rows)[:, None]
    head = model.model.classifier  # the stock head without its last linear layer
    assert torch.allclose(model.embed(data), head(pooled), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_saved_folder_gives_the_same_logits(folders, family, tmp_path):
    model = load(folders, family)
    assert model.mean_pooling == (family in FOLDABLE)
    model.save(tmp_path)
    opened = stored(tmp_path)
    for data in (inputs(), inputs(width=30)):
        assert torch.allclose(opened(**data).logits, model(data), atol=2e-5)
    assert opened.config.id2label == dict(enumerate(CLASSES))
    assert opened.config.label2id == {name: i for i, name in enumerate(CLASSES)}


@pytest.mark.parametrize("family", FOLDABLE)
@torch.no_grad()
def test_stock_pooling_of_a_foldable_family(folders, family, tmp_path):
    stock, mean = load(folders, family, pooling="stock"), load(folders, family)
    stock.save(tmp_path)
    assert torch.allclose(stored(tmp_path)(**inputs()).logits, stock(inputs()), atol=1e-5)
    assert not torch.allclose(stock(inputs()), mean(inputs()), atol=1e-2)
    assert stored(tmp_path).config.num_hidden_layers == 2


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@torch.no_grad()
def test_a_saved_net_can_be_loaded_and_saved_again(folders, family, tmp_path):
    """With its own classes; the folded layer is not folded a second time."""
    model = load(folders, family)
    model.save(tmp_path / "one")
    again = load_text_net(str(tmp_path / "one")).eval()
    again.save(tmp_path / "two")
    assert torch.allclose(again(inputs()), model(inputs()), atol=2e-5)
    assert torch.allclose(stored(tmp_path / "two")(**inputs()).logits, model(inputs()), atol=2e-5)
    layers = [json.loads((tmp_path / f / "config.json").read_text()).get("num_hidden_layers") for f in ("one", "two")]
    assert layers[0] == layers[1]


def test_pipeline_names_the_classes(net, tmp_path):
    net.save(tmp_path)
    said = pipeline("text-classification", model=str(tmp_path))("good fun film", top_k=None)
    assert {answer["label"] for answer in said} == set(CLASSES)
    data = AutoTokenizer.from_pretrained(tmp_path)("good fun film", return_tensors="pt")
    with torch.no_grad():
        p = net({k: data[k] for k in ("input_ids", "attention_mask")}).softmax(-1)[0]
    scores = {answer["label"]: answer["score"] for answer in said}
    assert [scores[c] for c in CLASSES] == pytest.approx(p.tolist(), abs=1e-5)


def test_saving_leaves_the_net_as_it_is(net, tmp_path):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    net.save(tmp_path)
    assert net.training and before.keys() == net.state_dict().keys()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# --- edits ---


@dataclass
class Factor:
    """Multiplies the representation, and remembers what it was given."""

    layer: int
    factor: float = 1.0
    keep: int | None = None  # length of the mask handed back
    seen: tuple = ()

    def __call__(self, h, mask, content):
        self.seen = (tuple(h.shape), None if mask is None else tuple(mask.shape))
        changed = None if self.keep is None else mask * (torch.arange(mask.shape[1]) < self.keep)
        return h * self.factor, changed


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 1, 2])
@torch.no_grad()
def test_edit_is_applied_at_its_layer(folders, family, layer):
    model = load(folders, family)
    plain, same, zero = model(inputs()), Factor(layer), Factor(layer, 0.0)
    assert torch.allclose(model(inputs(), same), plain, atol=1e-5)
    assert same.seen[0][:2] == (5, 12) and same.seen[1] == (5, 12)
    edited = model(inputs(), zero)
    assert not torch.allclose(edited, plain, atol=1e-2)
    assert torch.allclose(model(inputs()), plain, atol=1e-6)  # the hook is gone
    if layer == 2:  # all that is left of a row is gone: rows cannot be told apart
        assert torch.allclose(edited, edited[:1].expand_as(edited), atol=1e-5)


@pytest.mark.parametrize("layer", [1, 2])
@torch.no_grad()
def test_edit_sees_the_output_of_its_layer(net, layer):
    wanted = net.model.base_model(**inputs(), output_hidden_states=True).hidden_states[layer]

    seen = []

    class Look(Factor):
        def __call__(self, h, mask, content):
            seen.append(h)
            return h, None

    net(inputs(), Look(layer))
    assert len(seen) == 1 and torch.allclose(seen[0], wanted, atol=1e-5)


@torch.no_grad()
def test_edit_0_sees_word_embeddings_once(net):
    """The words alone: positions, types, LayerNorm and dropout come after the edit, and only once."""
    words = net.model.get_input_embeddings()(inputs()["input_ids"])

    seen = []

    class Look(Factor):
        def __call__(self, h, mask, content):
            seen.append(h)
            return h, None

    net(inputs(), Look(0))
    assert len(seen) == 1 and torch.equal(seen[0], words)


@torch.no_grad()
def test_the_mask_of_an_edit_is_used(net):
    """Keeping four tokens of every row is the same as cutting the rows."""
    cut = {k: v[:, :4] for k, v in inputs().items()}
    assert torch.allclose(net(inputs(), Factor(0, keep=4)), net(cut), atol=1e-5)
    assert not torch.allclose(net(cut), net(inputs()), atol=1e-3)


@pytest.mark.parametrize("layer", [-1, 3])
def test_edit_of_a_layer_that_is_not_there(net, layer):
    with pytest.raises(ConfigError, match=f"SSL222: edit layer {layer} does not exist: the encoder has layers 1..2"):
        net(inputs(), Factor(layer))


@pytest.mark.parametrize("layer", [0, 1])
def test_gradient_reaches_an_edit(net, layer):
    noise = torch.zeros(5, 12, 32, requires_grad=True)

    class Add(Factor):
        def __call__(self, h, mask, content):
            return h + noise, None

    net(inputs(), Add(layer))[:, 0].sum().backward()
    assert noise.grad[0].any() and torch.isfinite(noise.grad).all()


# --- Net: what methods call ---


def test_views_come_back_in_the_order_asked_for(net):
    call, data = Net(net), batch()
    with torch.no_grad():
        x, s = call(data, "x", "u_s")
        s2, w, x2 = call(data, "u_s", "u_w", "x")
        (w2,) = call(data, "u_w")
        whole = net(data["inputs"])
    assert x.shape == (2, 3) and w.shape == (2, 3)
    for a, b in ((x, x2), (s, s2), (w, w2), (x, whole[:2]), (w, whole[2:4]), (s, whole[4:])):
        assert torch.allclose(a, b, atol=1e-5)


def test_one_forward_per_call_through_the_wrapper_only_with_gradient(net):
    calls = []

    class Wrapper(nn.Module):
        def forward(self, inputs, edit=None):
            calls.append(inputs["input_ids"].shape)
            return net(inputs, edit)

    call = Net(net, Wrapper())
    call(batch(), "x", "u_s")
    assert calls == [(4, 12)]
    with torch.no_grad():
        call(batch(), "u_w")
    assert len(calls) == 1


def test_columns_that_are_padding_in_every_row_are_cut(net, monkeypatch):
    """Rows of 3 and 9 tokens in a block of 12 columns are computed on 9, and counted."""
    widths, embed = [], net.embed

    def noted(inputs, edit=None):
        widths.append(inputs["input_ids"].shape[1])
        return embed(inputs, edit)

    monkeypatch.setattr(net, "embed", noted)
    call = Net(net)
    call(batch(), "u_w")
    assert widths == [9] and call.real_tokens == 12 and call.computed_tokens == 18


@pytest.mark.parametrize("mode", [True, False])
def test_without_dropout_passes_repeat_and_the_mode_comes_back(folders, mode):
    model = load(folders, "bert").train(mode)
    call = Net(model)
    a, b = (call(batch(), "u_w", dropout=False)[0] for _ in range(2))
    assert torch.equal(a, b)
    assert all(m.training == mode for m in model.modules())
    c, d = (call(batch(), "u_w")[0] for _ in range(2))
    assert torch.equal(c, d) == (not mode)


def test_mode_comes_back_after_an_error(net):
    net.train()
    with pytest.raises(ConfigError):
        Net(net)(batch(), "x", edit=Factor(9), dropout=False)
    assert all(m.training for m in net.modules())


def image_batch():
    task = tiny_images()
    rows = {"x": slice(0, 4), "u_w": slice(4, 12)}
    empty = torch.zeros(0)
    pixels = {"pixel_values": torch.randn(12, 1, 8, 8)}
    lengths = np.ones(12, dtype=np.int32)
    return task.build(0), Batch(
        inputs=pixels, lengths=lengths, rows=rows, y=empty, w=empty, id={}, keys={}, true_labels=empty
    )


def statistics(model):
    return [v.clone() for k, v in model.state_dict().items() if "running" in k]


@pytest.mark.parametrize("dropout", [True, False])
def test_running_statistics_move_in_training_passes_alone(dropout):
    """Not without gradient, and not in the clean passes of adversarial methods, which have gradient but no dropout."""
    model, data = image_batch()
    model.train()
    call, before = Net(model), statistics(model)
    with torch.no_grad():
        call(data, "u_w", dropout=dropout)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))
    call(data, "x", "u_w", dropout=dropout)
    moved = [not torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True)]
    assert all(moved) if dropout else not any(moved)


# --- loading and training ---


def test_text_fits_its_few_labels(tmp_path):
    """The whole chain learns: a tiny net tells the marked texts apart better than chance after a short run."""
    task = tiny_task(tmp_path, dropout=0.0)
    config = TrainConfig(
        max_steps=60,
        batch_size=16,
        warm_start="none",
        mixed_precision="no",
        learning_rate=3e-3,
        head_learning_rate=3e-3,
    )
    data = replace(task.data, dev=task.data.labeled)
    assert fit(FixMatch(), replace(task, data=data), config).scores["dev"].accuracy == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_name_every_encoder_parameter(folders, family):
    """Embeddings, then one prefix per layer: each has parameters, and they do not overlap."""
    model = load(folders, family)
    names = [name for name, _ in model.named_parameters()]
    held = [[n for n in names if n.startswith(prefix)] for prefix in model.layers()]
    assert len(held) == 3 and all(held)
    assert len({n for part in held for n in part}) == sum(map(len, held))
    words = model.model.get_input_embeddings().weight
    assert any(p is words for n, p in model.named_parameters() if n in held[0])


HEADS = {
    "bert": {"classifier"},
    "roberta": {"classifier", "model.classifier.dense"},
    "electra": {"classifier", "model.classifier.dense"},
    "distilbert": {"classifier", "model.pre_classifier"},
    "mpnet": {"classifier", "model.classifier.dense"},
    "modernbert": {"classifier", "model.head.dense", "model.head.norm"},
}


@pytest.mark.parametrize("family", HEADS)
def test_layers_outside_the_encoder_take_the_rate_of_new_layers(folders, family):
    model = load(folders, family)
    names = [name.rpartition(".")[0] for name, _ in model.named_parameters() if name.startswith(model.head_prefixes())]
    assert set(names) == HEADS[family]


def test_dropout_can_be_set(folders):
    assert {m.p for m in load(folders, "bert", dropout=0.3).modules() if isinstance(m, nn.Dropout)} == {0.3}


def test_weights_are_float32_whatever_the_file_holds(folders, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(folders["bert"], dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert {p.dtype for p in load_text_net(str(tmp_path), CLASSES).parameters()} == {torch.float32}


def test_mean_pooling_is_refused_where_it_cannot_be_saved(folders):
    with pytest.raises(ConfigError, match="SSL221: mean pooling is not available for distilbert: use --pooling stock"):
        load_text_net(str(folders["distilbert"]), CLASSES, pooling="mean")


def test_a_model_that_is_not_there():
    with pytest.raises(ConfigError, match="SSL220: cannot open the model '/nowhere/model'") as error:
        load_text_net("/nowhere/model", CLASSES)
    assert "\n" not in str(error.value)


def test_weights_in_a_pickle_are_not_read(folders, tmp_path):
    """The same weights that would load from safetensors."""
    load_text_net(str(folders["bert"])).save(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    load_text_net(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="SSL220: cannot open the model") as error:
        load_text_net(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_does_not_fit(folders, tmp_path):
    model = AutoModelForSequenceClassification.from_config(BertConfig(**{**SHAPE, "vocab_size": 20}))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"SSL224: .* has {len(VOCABULARY)} entries, the model only 20"):
        load_text_net(str(tmp_path), CLASSES)


def test_a_tokenizer_without_padding(folders, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    AutoModelForSequenceClassification.from_config(BertConfig(**SHAPE)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="SSL225: .* has no pad token"):
        load_text_net(str(tmp_path), CLASSES)


def test_text_net_is_a_module_of_head_and_features(net):
    with torch.no_grad():
        features = net.embed(inputs())
        assert features.shape == (5, 32) and isinstance(net, TextNet)
        assert torch.equal(net.head(features), net(inputs()))


# --- edits that change the mask


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_wider_mask_reaches_layers_and_pooling_or_is_refused(folders, family):
    """All of the partner is the partner, at the inputs and half-way up; a family whose layers take another kind of mask
    says so instead of computing something else."""
    found = load(folders, family)
    rows = inputs((5, 12))
    plain = found(rows)
    other = torch.tensor([1, 1])
    known = found.model.config.model_type in (
        "bert",
        "roberta",
        "electra",
        "camembert",
        "xlm-roberta",
        "distilbert",
        "mpnet",
    )
    for layer in (0, 1):
        edit = Blend(torch.zeros(2), other, layer)
        if layer and not known:
            with pytest.raises(ConfigError, match="SSL277: .* cannot mix hidden layers: use --mixer embedding"):
                found(rows, edit)
        else:
            assert torch.allclose(found(rows, edit)[0], plain[1], atol=1e-4), layer


def test_decoders_refuse_edits(tmp_path):
    """They pool at the last token of `input_ids`, which an edit takes away."""
    config = GPT2Config(vocab_size=40, n_positions=64, n_embd=32, n_layer=2, n_head=2, num_labels=3, pad_token_id=0)
    net = TextNet(GPT2ForSequenceClassification(config), tiny_tokenizer(), "stock")
    rows = {k: v for k, v in inputs((5, 12)).items() if k != "token_type_ids"}
    assert net(rows).shape == (2, 3)
    with pytest.raises(ConfigError, match="SSL276: .* needs an encoder"):
        net(rows, Blend(torch.ones(2), torch.tensor([0, 1])))
