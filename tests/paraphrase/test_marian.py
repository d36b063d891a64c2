"""Back-translation by Marian models: tiny random ones, through the real tokenizer, generation and conversion."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from nlp_ssl.errors import ConfigError
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.marian import CTranslate2, Marian
from nlp_ssl.paraphrase.rewrite import Rewriting
from nlp_ssl.utils.sentences import batches, by_sentence, split

MISSING = "not installed: pip install '.[translate]'"
sentencepiece = pytest.importorskip("sentencepiece", reason=MISSING)
from transformers import AutoTokenizer, MarianConfig, MarianMTModel, MarianTokenizer  # noqa: E402

TEXTS = ["a good film . it was fun", "dull", "the plot is slow and the end is warm", "", "fine joy"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random Marian of width 16 with a vocabulary learned from a few lines."""
    folder = tmp_path_factory.mktemp("marian")
    (folder / "lines.txt").write_text("\n".join(TEXTS * 40))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "source"), vocab_size=30, minloglevel=2
    )
    spm = folder / "source.model"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    words = ["</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces))), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    MarianTokenizer(str(spm), str(spm), str(folder / "vocab.json"), source_lang="a", target_lang="b").save_pretrained(
        folder / "model"
    )
    torch.manual_seed(0)
    pad = len(words) - 1
    config = MarianConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=128,
        pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, forced_eos_token_id=0, bos_token_id=None,
        share_encoder_decoder_embeddings=True,
    )  # fmt: skip
    made = MarianMTModel(config)
    made.generation_config.update(num_beams=4, max_length=60, bad_words_ids=[[pad]])
    made.save_pretrained(folder / "model")
    return str(folder / "model")


@pytest.fixture(params=["marian", "ctranslate2"])
def engine(request, model, tmp_path, monkeypatch):
    """Either engine, as a function of its options."""
    if request.param == "marian":
        return lambda **options: Marian(model, model, **options)
    pytest.importorskip("ctranslate2", reason=MISSING)
    monkeypatch.setattr("nlp_ssl.paraphrase.marian.cache_folder", lambda: tmp_path)
    return lambda **options: CTranslate2(model, model, **options)


def views(engine, texts=TEXTS, seed=0):
    with engine.open() as pair:
        return dict(pair.translate(texts, seed))


def test_every_text_has_a_translation_and_none_says_more_than_another_asked(engine):
    found = views(engine(temperature=0.0))
    assert sorted(found) == list(range(5)) and found[3] == ""
    assert all(isinstance(text, str) and "<pad>" not in text and "</s>" not in text for text in found.values())
    alone = [views(engine(temperature=0.0), [text])[0] for text in TEXTS]
    assert [found[i] for i in range(5)] == alone, "padding or company changed a translation"


def test_seeds_draw_and_repeat(engine):
    sampled = engine(temperature=1.0)
    assert views(sampled, seed=1) == views(sampled, seed=1) != views(sampled, seed=2)
    assert views(engine(temperature=0.0), seed=1) == views(engine(temperature=0.0), seed=2)


def test_translation_is_there_and_back(model):
    """Greedy by hand with the same model twice: encode, generate, decode, each sentence for itself."""
    tokenizer, net = AutoTokenizer.from_pretrained(model), MarianMTModel.from_pretrained(model).eval()

    def once(sentence):
        inputs = tokenizer([sentence], return_tensors="pt", truncation=True, max_length=128)
        longest = min(2 * inputs["input_ids"].shape[1] + 10, 126)
        out = net.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=longest + 1, max_length=None)
        return tokenizer.decode(out[0][1 : 1 + longest], skip_special_tokens=True)

    found = views(Marian(model, model, temperature=0.0))
    for number, sentences in ((0, ["a good film .", "it was fun"]), (2, [TEXTS[2]])):
        assert found[number] == " ".join(once(once(s)).strip() or s for s in sentences)


def test_float32_conversion_says_what_the_model_says(model, tmp_path, monkeypatch):
    pytest.importorskip("ctranslate2", reason=MISSING)
    monkeypatch.setattr("nlp_ssl.paraphrase.marian.cache_folder", lambda: tmp_path)
    one = views(CTranslate2(model, model, temperature=0.0, precision="float32"))
    assert one == views(Marian(model, model, temperature=0.0))
    kept = sorted((tmp_path / "ctranslate2").iterdir())
    views(CTranslate2(model, model, temperature=0.0, precision="float32"))
    assert sorted((tmp_path / "ctranslate2").iterdir()) == kept, "converted a second time"
    views(CTranslate2(model, model, temperature=0.0, precision="int8"))
    assert len(list((tmp_path / "ctranslate2").iterdir())) > len(kept)


def test_through_the_cache_with_samples(engine, tmp_path):
    texts = [TEXTS[0], TEXTS[2]]
    with Cache(tmp_path / "c") as cache, Rewriting([engine(temperature=1.0)], cache, samples=2) as work:
        found, again = list(work(texts)), list(work(texts))
    assert found == again and [(v.text, v.sample) for v in found] == [(t, s) for t in texts for s in (0, 1)]


def test_models_that_are_none(tmp_path):
    with (
        pytest.raises(ConfigError, match="SSL285: no translation model can be opened as"),
        Marian(str(tmp_path), str(tmp_path)).open(),
    ):
        pass
    with pytest.raises(ConfigError, match="temperature must lie in"):
        Marian(temperature=-1.0)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"vocab_size": 10**9}, "a model of"),
        ({"max_position_embeddings": 10**9}, "a model of"),
        ({"encoder_layers": 100_000}, "encoder_layers 100000"),
        ({"decoder_attention_heads": 0}, ""),
        ({"activation_function": "evil"}, ""),
        ({"attn_implementation": "some/kernel"}, "asks for attention by"),
        ({"auto_map": {"AutoModelForSeq2SeqLM": "evil.Evil"}, "model_type": "evil"}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("pickled", [False, True])
def test_a_hostile_model_is_one_line(model, tmp_path, fields, words, pickled):
    folder = shutil.copytree(model, tmp_path / "x")
    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    line = f"^SSL285: [^\\n]*{words}[^\\n]*$"
    with pytest.raises(ConfigError, match=line), Marian(str(folder), str(folder)).open():
        pass


def test_pickled_weights_translate_alike(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "x")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    options = {"temperature": 0.0}
    assert views(Marian(str(folder), str(folder), **options)) == views(Marian(model, model, **options))


# --- sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. Smith saw J. Doe. He left.", ["Mr. Smith saw J. Doe.", "He left."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("it cost 3.50 dollars. cheap", ["it cost 3.50 dollars. cheap"]),
        ("a good film . it was fun", ["a good film .", "it was fun"]),
        ("Ends here.  \n New line.", ["Ends here.", "New line."]),
        ("Élan. Über alles. 42 men.", ["Élan.", "Über alles.", "42 men."]),
        ("   ", []),
        ("", []),
    ],
)
def test_split(text, sentences):
    assert split(text) == sentences


def test_a_sentence_without_end_is_cut():
    assert [len(part.split()) for part in split("word " * 250)] == [120, 120, 10]


def test_batches_waste_little():
    sizes = [3, 50, 4, 49, 3, 100]
    found = list(batches(sizes, 100))
    assert sorted(sum(found, [])) == list(range(6))
    assert found == [[0, 4, 2], [3, 1], [5]]
    assert list(batches([500], 100)) == [[0]] and list(batches([], 100)) == []


def test_texts_come_as_soon_as_they_are_whole():
    """The long sentence of text 0 comes last; what becomes nothing stays."""
    asked = []

    def upper(sentences):
        asked.append(sentences)
        return ["" if s == "gone" else s.upper() for s in sentences]

    texts = ["Short one. " + "Long one " * 9, "tiny", "gone", " "]
    found = list(by_sentence(texts, lambda s: len(s.split()), 4, upper))
    assert [number for number, _ in found] == [3, 1, 2, 0]
    assert dict(found) == {0: ("Short one. " + "Long one " * 9).strip().upper(), 1: "TINY", 2: "gone", 3: " "}
    assert asked == [["tiny", "gone"], ["Short one."], [("Long one " * 9).strip()]]
