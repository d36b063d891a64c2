"""Model folders of others: what cannot be opened is one line, told before anything is built."""

import json
import resource
import shutil
import time

import numpy as np
import pytest
import torch
from tiny import saved_classifier, tiny_bert, tiny_files
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from nlp_ssl.cli import run
from nlp_ssl.errors import ConfigError, SSLError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.inference.predict import predict_texts
from nlp_ssl.nets.opening import opening
from nlp_ssl.nets.text import load_teacher, load_text_net, load_trained

TEXTS = ["good film", "bad film"]
# Fields of config.json, and words of the line that refuses them.
REFUSED = {
    "no such type of number": ({"dtype": "evil"}, "has no attribute 'evil'"),
    "a word for a number": ({"layer_norm_eps": "evil"}, "layer_norm_eps"),
    "no heads": ({"num_attention_heads": 0}, ""),
    "fewer than no heads": ({"num_attention_heads": -2}, ""),
    "no width": ({"hidden_size": 0}, ""),
    "less than no width": ({"hidden_size": -32}, ""),
    "code from the hub": ({"attn_implementation": "some/kernel"}, "asks for attention by 'some/kernel'"),
    "the same within": ({"attn_implementation": {"": "some/kernel"}}, "asks for attention by 'some/kernel'"),
    "its other name": ({"_attn_implementation": "some/kernel"}, "asks for attention by 'some/kernel'"),
    "what falls back to the hub": ({"attn_implementation": "flash_attention_2"}, "asks for attention by"),
    "a giant vocabulary": ({"vocab_size": 10**9}, "a model of 32,00"),
    "giant positions": ({"max_position_embeddings": 10**9}, "a model of 3"),
    "giant layers": ({"intermediate_size": 10**9}, "a model of "),
    "a number too large for any tensor": ({"hidden_size": 2**62}, ""),
    "layers without end": ({"num_hidden_layers": 100_000}, "num_hidden_layers 100000, more than"),
    "labels without end": ({"id2label": None, "num_labels": 10**9}, "num_labels 1000000000"),
    "labels within": ({"text_config": {"num_labels": 10**9}}, "num_labels 1000000000"),
    "quantized": ({"quantization_config": {"quant_method": "mxfp4"}}, "its weights are quantized"),
    "other weights": ({"transformers_weights": "other.safetensors"}, "names another file of weights"),
    "own code": ({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}, ""),
    "an unknown activation": ({"hidden_act": "evil"}, ""),
    "an impossible dropout": ({"hidden_dropout_prob": 5.0}, ""),
    "no answer": ({"chunk_size_feed_forward": "evil"}, ""),
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return saved_classifier(tmp_path_factory.mktemp("opening"), ["neg", "pos"], TEXTS)


@pytest.fixture
def folder(classifier, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(classifier, tmp_path / "x")


def change(folder, name="config.json", **fields):
    """Sets fields of a JSON file; those that are None go."""
    values = json.loads((folder / name).read_text()) | fields
    (folder / name).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def refused(call, *words):
    """The line of the error, once it is sure that neither time nor memory went into it."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SSLError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line and line.startswith("SSL") and len(line) < 500 and all(word in line for word in words), line
    assert "not enough memory" not in line
    assert time.process_time() - began < 3 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    return line


@pytest.mark.parametrize("fields, words", REFUSED.values(), ids=REFUSED)
def test_what_a_config_asks_for_is_refused_in_one_line(folder, fields, words):
    (folder / "evil.py").write_text("raise SystemExit('ran code of the folder')\n")
    change(folder, **fields)
    refused(lambda: load_trained(folder), "SSL220", str(folder), words)
    refused(lambda: load_text_net(str(folder), ["a", "b", "c"]), "SSL220", words)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"id2label": ', "[" * 100_000, '{"model_type": "bert"}\x00'])
def test_what_is_no_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    refused(lambda: load_trained(folder), "SSL220")


def test_an_adapter_is_no_model(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model", "peft_type": "LORA"}')
    refused(lambda: load_trained(folder), "it is an adapter (adapter_config.json): merge it")
    refused(lambda: Embedder(str(folder))(TEXTS), "SSL286", "it is an adapter")


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"},
        {"model_max_length": "evil"},
        {"model_max_length": 0},
        {"model_max_length": [64]},
        {"pad_token": 3},
        {"padding_side": "evil"},
        {"model_input_names": 5},
        {"added_tokens_decoder": {"x": {"content": "y"}}},
    ],
    ids=str,
)
def test_what_a_tokenizer_config_asks_for_is_refused_or_has_no_effect(folder, classifier, fields):
    (folder / "evil.py").write_text("raise SystemExit('ran code of the folder')\n")
    change(folder, "tokenizer_config.json", **fields)
    try:
        found = predict_texts(load_trained(folder), TEXTS, 16)
    except ConfigError as error:
        assert error.code in (220, 224, 225) and "\n" not in str(error)
    else:
        assert found == predict_texts(load_trained(classifier), TEXTS, 16)


def test_a_damaged_tokenizer_is_refused(folder):
    whole = json.loads((folder / "tokenizer.json").read_text())
    for part, value in (("model", {}), ("version", "9"), ("post_processor", {"type": "evil"}), ("truncation", "x")):
        (folder / "tokenizer.json").write_text(json.dumps({**whole, part: value}))
        refused(lambda: load_trained(folder), "SSL220")
    (folder / "tokenizer.json").write_text(json.dumps(whole)[:300])
    refused(lambda: load_trained(folder), "SSL220")


def test_tokens_beyond_the_word_embeddings_are_refused(folder):
    """A gap in the numbers: there are no more entries than rows; and a token that every text gets, of no entry."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = {**whole["model"]["vocab"], "music": 10**6}
    (folder / "tokenizer.json").write_text(json.dumps({**whole, "model": {**whole["model"], "vocab": vocabulary}}))
    refused(lambda: load_trained(folder), "SSL224", "has 1000001 entries, the model only 36")
    end = whole["post_processor"]["special_tokens"]["[SEP]"]
    end["ids"] = [999]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    refused(lambda: load_trained(folder), "SSL220")


def test_an_index_of_weights_is_held_against_them(classifier, tmp_path):
    """Of weights in several files; and what an index names is in its folder."""
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(classifier / name, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    whole = load_text_net(str(tmp_path)).eval()
    assert predict_texts(whole, TEXTS, 16) == predict_texts(load_trained(classifier), TEXTS, 16)
    change(tmp_path, vocab_size=10**9)
    refused(lambda: load_text_net(str(tmp_path)), "a model of 32,00")
    change(tmp_path, vocab_size=36)
    name = "model.safetensors.index.json"
    index = json.loads((tmp_path / name).read_text())
    change(tmp_path, name, weight_map={k: "../model.safetensors" for k in index["weight_map"]})
    refused(lambda: load_text_net(str(tmp_path)), "which is no file beside it")


def test_layers_that_the_weights_have_not_are_not_made_up(folder):
    """Nor are those left out that they have: another model would answer."""
    change(folder, num_hidden_layers=4)
    refused(lambda: load_trained(folder), "SSL228")
    refused(lambda: load_text_net(str(folder), ["a", "b"]), "SSL228")
    change(folder, num_hidden_layers=2)
    refused(lambda: load_trained(folder), "SSL228")
    change(folder, num_hidden_layers=3, hidden_size=64)
    refused(lambda: load_text_net(str(folder), ["a", "b"]), "SSL228")


def test_an_encoder_alone_may_lack_classifier_and_pooler(tmp_path):
    tiny_bert(tmp_path)
    encoder = BertForSequenceClassification.from_pretrained(tmp_path).bert
    encoder.pooler = None
    encoder.save_pretrained(tmp_path)
    assert load_text_net(str(tmp_path), ["a", "b", "c"]).classifier.out_features == 3


def test_names_of_labels_in_another_order_are_those_of_the_same_outputs(folder, classifier):
    """The order of a file is not that of the numbers; names that do not fit the outputs are refused."""
    change(folder, id2label={"1": "pos", "0": "neg"})
    assert predict_texts(load_trained(folder), TEXTS, 16) == predict_texts(load_trained(classifier), TEXTS, 16)
    for names in ({"0": "neg", "2": "pos"}, {"0": "neg", "1": 3}, {}, ["neg", "pos"]):
        change(folder, id2label=names)
        refused(lambda: load_trained(folder), "SSL22")


def test_positions_are_counted_whatever_a_config_says(folder):
    change(folder, rope_theta=1e6, position_embedding_type="rotary")
    assert load_trained(folder).longest() == 64


def test_opening_takes_no_random_numbers_and_leaves_the_tokenizer_as_it_was(classifier):
    before = torch.random.get_rng_state()
    tokenizer = load_trained(classifier).tokenizer
    assert torch.equal(torch.random.get_rng_state(), before)
    assert json.loads(tokenizer.backend_tokenizer.to_str()) == json.loads((classifier / "tokenizer.json").read_text())


def test_interrupts_and_own_errors_pass():
    def refusal(reason):
        return ConfigError(220, reason)

    for error in (KeyboardInterrupt(), SystemExit(3), ConfigError(226, "our own")):
        with pytest.raises(type(error)) as raised, opening(refusal):
            raise error
        assert raised.value is error
    others = ((MemoryError(), "not enough memory"), (KeyError("a\nb"), "KeyError: 'a"), (ValueError(), "ValueError"))
    for error, words in others:
        with pytest.raises(ConfigError, match=words), opening(refusal):
            raise error


def test_a_teacher_and_every_command_refuse_alike(folder, tmp_path, capsys):
    """One giant vocabulary at every door: eval, predict, select, export, index, --model, --teacher, --student."""
    files = tiny_files(tmp_path)
    like = load_text_net(str(files / "model"), ["neg", "pos"])
    change(folder, vocab_size=10**9)
    refused(lambda: load_teacher(str(folder), like), "SSL220")
    labeled, pool, model = str(files / "l.csv"), str(files / "u.txt"), str(folder)
    base = ["train", "--labeled", labeled, "--unlabeled", pool, "--output-dir", str(tmp_path / "out")]
    small = ["--max-steps", "1", "--warm-start", "none", "--max-length", "16"]
    doors = [
        ["eval", model, labeled],
        ["predict", model, pool],
        ["select", pool, "--classifier", model, "--out", str(tmp_path / "s.parquet")],
        ["select", pool, "--in-domain", labeled, "--encoder", model, "--out", str(tmp_path / "s.parquet")],
        ["export", model, "--out", str(tmp_path / "onnx")],
        ["index", "build", pool, "--encoder", model, "--out", str(tmp_path / "bank")],
        [*base, "--method", "fixmatch", "--model", model, *small],
        [*base, "--method", "distillation", "--model", str(files / "model"), "--teacher", model, *small],
        [*base, "--method", "self_training", "--model", str(files / "model"), "--student", model, *small],
        ["doctor", "--labeled", labeled, "--unlabeled", pool, "--model", model],
    ]
    for argv in doors:
        code = run(argv)
        shown = "".join(capsys.readouterr())
        assert code in (1, 2, 3) and "a model of 32,00" in shown and "Traceback" not in shown, (argv, code, shown)


# --- sentence encoders


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A sentence encoder with a layer on top, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer

    folder = tmp_path_factory.mktemp("encoder")
    words = Transformer(str(tiny_bert(folder / "model")))
    parts = [words, Pooling(32), Dense(32, 8)]
    SentenceTransformer(modules=parts).save(str(folder / "out"))
    return folder / "out"


@pytest.mark.parametrize(
    "name, fields, words",
    [
        ("config.json", {"vocab_size": 10**9}, "a model of"),
        ("config.json", {"num_hidden_layers": 100_000}, "num_hidden_layers 100000"),
        ("config.json", {"attn_implementation": "some/kernel"}, "asks for attention by"),
        ("config.json", {"layer_norm_eps": "evil"}, "layer_norm_eps"),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "some/kernel"}}, "asks for attention by"),
        ("2_Dense/config.json", {"out_features": 10**9}, "describes a layer that its weights are not of"),
        ("2_Dense/config.json", {"in_features": 10**6, "out_features": 10**6}, "that its weights are not of"),
        ("tokenizer_config.json", {"model_max_length": 0}, "texts are cut to 0 tokens"),
    ],
    ids=str,
)
def test_an_encoder_is_refused_in_one_line(encoder, tmp_path, name, fields, words):
    folder = shutil.copytree(encoder, tmp_path / "x")
    change(folder, name, **fields)
    refused(lambda: Embedder(str(folder))(["good film", "the film " * 60]), "SSL286", words)


def test_an_encoder_whose_modules_are_code_is_refused(encoder, tmp_path):
    assert Embedder(str(encoder))(TEXTS).shape == (2, 8)
    folder = shutil.copytree(encoder, tmp_path / "x")
    (folder / "evil.py").write_text("raise SystemExit('ran code of the folder')\n")
    modules = json.loads((folder / "modules.json").read_text())
    for found in ([{**modules[0], "type": "evil.Evil"}], [{"path": ""}], [], {}, [3]):
        (folder / "modules.json").write_text(json.dumps(found))
        refused(lambda: Embedder(str(folder))(TEXTS), "SSL286")


def test_embeddings_stay_what_they_were(encoder):
    """The look at the folder changes nothing of what is computed."""
    from sentence_transformers import SentenceTransformer

    wanted = SentenceTransformer(str(encoder)).encode(TEXTS, normalize_embeddings=True)
    assert np.allclose(Embedder(str(encoder))(TEXTS), wanted, atol=1e-6)
