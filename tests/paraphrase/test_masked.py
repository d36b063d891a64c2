"""Words drawn by masked language models: tiny random ones, through real tokenizers with pieces, windows and offsets."""

import json
import re

import numpy as np
import pytest
import torch
from tiny import FILLER, GOOD, SPECIAL
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    CanineTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from nlp_ssl.errors import ConfigError
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.masked import MaskedLM, gumbel
from nlp_ssl.paraphrase.rewrite import Rewriting
from nlp_ssl.utils.counter_rng import row_keys, uniform

PIECES = ["##ing", "##s", "##ly"]
VOCABULARY = [*SPECIAL, *GOOD, *FILLER, "play", "warm", *PIECES, ",", ".", "!", "[", "]", "mask", "1", "2"]
VOCABULARY = list(dict.fromkeys(VOCABULARY))
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.5,  # so that what is likely depends on the context
}


def wrapped(backend):
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def wordpiece(words=VOCABULARY):
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer(lowercase=True)])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.decoder = decoders.WordPiece()
    return wrapped(backend)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random BERT with room for 14 tokens, and a row of the vocabulary more than the tokenizer knows."""
    folder = tmp_path_factory.mktemp("masked")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(VOCABULARY) + 1, max_position_embeddings=16, **SIZES)
    BertForMaskedLM(config).save_pretrained(folder)
    wordpiece().save_pretrained(folder)
    return str(folder)


TEXTS = [
    "The good  film , it was\tplaying!\n",
    "",
    "  \n",
    "fun",
    " ".join([*GOOD, *FILLER] * 3) + " . the end",
    "a warm story, warmly , of ½ joys",
    "\ud800 odd \u200b words ☃ of the [MASK] and [SEP] in it",
    "...",
]


def views(engine, texts=TEXTS, seed=0):
    with engine.open() as filler:
        return dict(filler.translate(texts, seed))


def test_neither_company_nor_order_nor_batches_matter(model, monkeypatch):
    whole = views(MaskedLM(model, 0.4))
    assert sorted(whole) == list(range(len(TEXTS)))
    assert sum(whole[i] != text for i, text in enumerate(TEXTS)) >= 4
    turned = views(MaskedLM(model, 0.4), TEXTS[::-1])
    single = views(MaskedLM(model, 0.4, tokens=1))
    monkeypatch.setattr("nlp_ssl.paraphrase.masked._CELLS", 100)  # two masks at a time
    for number, text in enumerate(TEXTS):
        alone = views(MaskedLM(model, 0.4), [text, text])
        assert alone[0] == alone[1] == turned[len(TEXTS) - 1 - number] == single[number] == whole[number]
    assert views(MaskedLM(model), []) == {}


def test_seeds_and_texts_draw_anew(model):
    drawn = [views(MaskedLM(model, 0.4), seed=seed) for seed in (0, 1, 2**40, -1)]
    assert len({found[4] for found in drawn}) == 4
    likeliest = [views(MaskedLM(model, 1.0, 0.0), seed=seed) for seed in (0, 1)]
    assert likeliest[0] == likeliest[1], "all words, and nothing to draw"
    same = ["the good film", "the good film ", "the good film  "]  # the same tokens
    assert len({new.strip() for new in views(MaskedLM(model, 1.0), same).values()}) == 3


def test_only_masked_words_change(model):
    """Everything else stands where it stood: spaces, line ends, capitals, what the normalizer would drop or change."""
    text = "The GOOD  film , it was\tplaying!\r\n Ünd \u200b(½) the end . "
    changed = set()
    for seed in range(30):
        new = views(MaskedLM(model, 0.1), [text], seed)[0]
        fixed = [(m.start(), m.end()) for m in re.finditer(r"\w+", text)]
        fits = [(a, b) for a, b in fixed if new.startswith(text[:a]) and new.endswith(text[b:])]
        assert new == text or fits, "exactly one word of ten"
        changed |= set(fits) if new != text and len(fits) == 1 else set()
    assert len(changed) > 5, "any word may be masked"


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 5), (0.5, 10), (1.0, 20)])
def test_share_of_the_words(model, share, count):
    """The likeliest token never is the old one here, as that is "zzz", which the vocabulary lacks."""
    new = views(MaskedLM(model, share), [" ".join(["zzz"] * 20) + " , . !"])[0]
    assert new.endswith(" , . !") and new.split().count("zzz") == 20 - count


def test_nothing_to_do(model):
    assert views(MaskedLM(model, 0.0)) == dict(enumerate(TEXTS))
    found = views(MaskedLM(model, 1.0))
    assert (found[1], found[2]) == ("", "  \n")
    assert found[7] != "..." and len(found[7]) >= 3, "no word, but something to mask"


def predicted(model, rows, banned=()):
    """The likeliest tokens that are not special by a forward pass of its own, one list per row of tokens."""
    tokenizer, net = AutoTokenizer.from_pretrained(model), BertForMaskedLM.from_pretrained(model).eval()
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids(["[CLS]", *row, "[SEP]"])] for row in rows])[:, 0]
    with torch.no_grad():
        logits = net(input_ids=ids).logits[..., : len(VOCABULARY)].clone()
    logits[..., [VOCABULARY.index(token) for token in [*SPECIAL, *banned]]] = -torch.inf
    return [[VOCABULARY[i] for i in row[1:-1]] for row in logits.argmax(-1).tolist()]


def test_temperature_zero_is_the_likeliest_token(model):
    likeliest = MaskedLM(model, 0.1, 0.0)
    for tail in (", . !", "! ! .", ". , ["):
        (found,) = predicted(model, [["[MASK]", *tail.split()]], PIECES)
        assert views(likeliest, [f"good {tail}"])[0] == f"{found[0]} {tail}"


def test_words_of_two_pieces_are_masked_and_filled_whole(model):
    likeliest = MaskedLM(model, 0.1, 0.0)
    tokenizer = wordpiece()
    second = set()
    for tail in (",", ". !", "[ , .", "] ] ! ,", "! . . ."):
        row = ["[MASK]", "[MASK]", *tail.split()]
        first, later = predicted(model, [row], PIECES)[0][0], predicted(model, [row])[0][1]
        second.add(later)
        ids = tokenizer.convert_tokens_to_ids([first, later])
        assert views(likeliest, [f"playing {tail}"])[0] == f"{tokenizer.decode(ids)} {tail}"
    drawn = {views(MaskedLM(model, 0.1, 5.0), ["playing"], seed)[0] for seed in range(40)}
    assert any(re.fullmatch("[a-z]+(ing|s|ly)", new) and new not in VOCABULARY for new in drawn)
    assert any(" " in new for new in drawn), "two words in the place of one"
    assert not any(new.startswith("#") for new in drawn)


def test_special_and_unknown_tokens_are_never_drawn(model):
    """At a temperature where all are all but equally likely; 300 draws of some 45 tokens."""
    with MaskedLM(model, 1.0, 10.0).open() as filler:
        filler.model.cls.predictions.bias.data[: len(SPECIAL)] = 40.0
        filler.model.cls.predictions.bias.data[len(VOCABULARY) :] = 40.0
        new = dict(filler.translate(["zzz " * 300], 0))[0].split()
    assert len(new) == 300 and len(set(new)) > 20
    assert not set(new) & {*SPECIAL, "zzz", *PIECES, ""}


def test_capitals_of_an_uncased_model(model):
    new = views(MaskedLM(model, 1.0), ["Good film THE end"] * 2)[0].split()
    assert [word[0].isupper() for word in new if word[0].isalpha()] == [
        old[0].isupper() for old, word in zip("Good film THE end".split(), new, strict=True) if word[0].isalpha()
    ]
    assert any(word[0].isupper() for word in new)


def test_long_texts_keep_their_tail(model):
    """A hundred words, of them many pieces, in windows of 14: words are changed all over, the last one included."""
    text = " ".join(f"playings{', ' if i % 7 == 0 else ''}" for i in range(100)) + " Zzz!?\n"
    few = views(MaskedLM(model, 0.02), [text])[0]
    assert few.endswith(" Zzz!?\n") and 97 <= few.count("playings") <= 99
    all_new = views(MaskedLM(model, 1.0), [text, "fun"])[0]
    assert "playings" not in all_new and all_new.endswith("!?\n") and "Zzz" not in all_new
    assert all_new.count(",") >= 15
    changed = {i for seed in range(60) for i in where(views(MaskedLM(model, 0.05), ["zzz " * 100], seed)[0])}
    assert len(changed) > 80


def where(text):
    return {i for i, word in enumerate(text.split()) if word != "zzz"}


def test_windows_see_their_own_words_alone(model):
    """The second window by hand: words 14 to 17, the first of which is masked."""
    text = "zzz " + ", " * 13 + "good ! . !"
    (found,) = predicted(model, [["[MASK]", "!", ".", "!"]], PIECES)
    assert views(MaskedLM(model, 1.0, 0.0), [text])[0].endswith(f" , {found[0]} ! . !")


def test_one_character_that_is_several_words(model):
    """The list mark falls apart into "1" and ".", which have the same place in the text: masked and filled together."""
    first, later = predicted(model, [["[MASK]", "[MASK]"]], PIECES)[0][0], predicted(model, [["[MASK]"] * 2])[0][1]
    new = wordpiece().decode(wordpiece().convert_tokens_to_ids([first, later]))
    assert views(MaskedLM(model, 0.1, 0.0), ["⒈"])[0] == new


def test_special_tokens_in_a_text_are_words(model):
    new = views(MaskedLM(model, 1.0), ["[MASK] good"])[0]
    assert re.fullmatch(r"\[[^\[\]M]+\] \S+", new), new


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A random RoBERTa with byte-level pieces, which counts positions from behind the padding id."""
    folder = tmp_path_factory.mktemp("roberta")
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join([*GOOD, *FILLER] * 20) + " don't (good) film"] * 3, trainer)
    backend.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.decoder = decoders.ByteLevel()
    wrapped(backend).save_pretrained(folder)
    torch.manual_seed(0)
    size = backend.get_vocab_size()
    config = RobertaConfig(vocab_size=size, max_position_embeddings=21, pad_token_id=0, **SIZES)
    RobertaForMaskedLM(config).save_pretrained(folder)
    return str(folder)


def test_byte_level_pieces(roberta):
    """Room 20 of 21 positions; spaces before words stand once; half characters are not written."""
    texts = ["The good  film , don't\nplay (é) ☃ ", " ".join(FILLER * 4), "fun"]
    for seed in range(20):
        found = views(MaskedLM(roberta, 0.5), texts, seed)
        assert all("\ufffd" not in new for new in found.values())
        assert [found[i][-1] == " " for i in range(3)] == [True, False, False]
        assert re.search(r"\S  \S.*,.*\n\S", found[0], re.DOTALL) and not found[2].startswith(" ")
        assert [views(MaskedLM(roberta, 0.5), [text], seed)[0] for text in texts] == [found[i] for i in range(3)]
    apart = [views(MaskedLM(roberta, 1.0), ["don't"], seed)[0] for seed in range(20)]
    assert any(" " in new for new in apart) and not any("  " in new for new in apart)


# --- the noise


def test_noise_is_that_of_counter_rng():
    keys = row_keys(7, 0, np.arange(5))
    noise = gumbel(torch.from_numpy(keys.view(np.int64)), 300)
    wanted = np.stack([uniform(np.full(300, key), np.arange(300)) for key in keys])
    np.testing.assert_allclose(np.exp(-np.exp(-noise.numpy())), wanted, atol=1e-12, rtol=0)
    assert torch.isfinite(noise).all()


def test_draws_follow_the_distribution(model):
    with MaskedLM(model, 1.0, 2.0).open() as filler:
        free = torch.nonzero(~filler.never)[:, 0]
        logits = torch.full((len(VOCABULARY) + 1,), -99.0)
        logits[free[:4]] = torch.tensor([3.0, 2.0, 0.0, -1.0])
        keys = torch.from_numpy(row_keys(1, 0, np.arange(40_000)).view(np.int64))
        drawn = filler.draw(logits.expand(40_000, -1), torch.zeros(40_000, dtype=torch.bool), keys)
    shares = torch.bincount(drawn, minlength=len(logits))[free[:4]] / 40_000
    assert torch.allclose(shares, torch.softmax(logits[free[:4]] / 2, 0), atol=0.01)


def test_through_the_cache(model, tmp_path):
    engine = MaskedLM(model, 0.3)
    with Cache(tmp_path / "c") as cache, Rewriting([engine], cache, samples=2) as work:
        found = list(work([TEXTS[0], TEXTS[5]]))
        assert list(work([TEXTS[0], TEXTS[5]])) == found and cache.written == 4
    names = {repr(MaskedLM(*options)) for options in (("a",), ("b",), ("a", 0.2), ("a", 0.15, 0.5))}
    assert len(names) == 4 and repr(MaskedLM("a")) == repr(MaskedLM("a", tokens=9)), "batches do not change a text"


# --- models that will not do


def refused(name, message):
    with pytest.raises(ConfigError, match=message) as caught, MaskedLM(str(name)).open():
        pass
    assert len(str(caught.value).splitlines()) == 1


def saved(folder, tokenizer, kind=BertForMaskedLM, **options):
    kind(BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=16, **SIZES)).save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def test_models_that_will_not_do(tmp_path, model):
    refused(tmp_path, "SSL290: no masked language model can be opened as .*: name a folder")
    refused(saved(tmp_path / "head", wordpiece(), BertForSequenceClassification), "SSL290: .* lacks weights, cls.pred")
    bare = wordpiece()
    bare.mask_token = None
    refused(saved(tmp_path / "bare", bare), "SSL291: .* has no mask token: name another model")
    refused(saved(tmp_path / "slow", CanineTokenizer()), "SSL291: .* is not a fast one")
    refused(saved(tmp_path / "large", wordpiece([*VOCABULARY, "more"])), r"SSL291: .* has \d+ entries and its model")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"vocab_size": 10**9}, "a model of"),
        ({"num_hidden_layers": 100_000}, "num_hidden_layers 100000"),
        ({"dtype": "evil"}, "evil"),
        ({"layer_norm_eps": "evil"}, "layer_norm_eps"),
        ({"attn_implementation": "some/kernel"}, "asks for attention by"),
    ],
    ids=str,
)
def test_a_hostile_model_is_one_line(tmp_path, fields, words):
    folder = saved(tmp_path / "x", wordpiece())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    refused(folder, f"SSL290: [^\\n]*{words}[^\\n]*$")


def test_pickled_weights_are_not_read(tmp_path):
    folder = saved(tmp_path / "pickled", wordpiece())
    weights = BertForMaskedLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, "SSL290: .*safetensors")


@pytest.mark.parametrize("options", [{"share": 1.1}, {"share": -0.1}, {"temperature": -1.0}, {"tokens": 0}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigError, match="must lie in"):
        MaskedLM("a", **options)
