"""One order of the classes everywhere: in files, models and estimators the number of an output is the class's own."""

import gzip
import json
import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Sequence, Value
from pairs import pair_tokenizer
from tiny import BAD, FAST, FILLER, GOOD, tiny_bert, tiny_tables, tiny_texts, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import SSLClassifier, SSLTrainer, SSLTrainingArguments, TrainConfig, compare, fit
from nlp_ssl.augment.tfidf import TfidfReplace
from nlp_ssl.cli import run
from nlp_ssl.data.pseudo_labels import labels_from_file, write_pseudo_labels
from nlp_ssl.data.schema import build_data, in_order
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import by_split, table_of
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.experiments.start import SharedStart
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.inference.teacher import joined, logits_of
from nlp_ssl.methods import Distillation
from nlp_ssl.nets.text import MULTI_LABEL, PAIRS, kind_of, load_text_net, load_trained, of_pairs
from nlp_ssl.registry import as_method
from nlp_ssl.rounds.self_training import SelfTraining
from nlp_ssl.task import text_task
from nlp_ssl.training.imbalance import adjustment

NUMBERS = list(range(12))
NAMES = [f"n{7 * i % 12:02d}" for i in NUMBERS]  # a data set's own order, which is not that of the names
# Whole steps that change hardly anything: after the start on the labels the net knows its training rows.
STILL = replace(FAST, max_steps=1, warm_start="contrastive", warm_steps=1, learning_rate=1e-9, head_learning_rate=1e-9)
FLAGS = ["--method", "supervised", "--max-steps", "1", "--max-length", "24", "--mixed-precision", "no",
         "--learning-rate", "1e-9", "--head-learning-rate", "1e-9"]  # fmt: skip


def rows_of(classes, each, seed):
    """Distinct texts that hold a word of their class, and their classes."""
    rng, texts = np.random.default_rng(seed), {}
    while len(texts) < each * len(classes):
        label = classes[len(texts) % len(classes)]
        word = (GOOD + BAD)[classes.index(label)]
        texts.setdefault(" ".join([*rng.choice(FILLER, 3), word, word]), label)
    return list(texts), list(texts.values())


TEXTS, LABELS = rows_of(NUMBERS, 3, seed=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("order") / "model", dropout=0.0)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Tokenized texts are cached beside the tests."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


def outputs(folder, texts):
    """Numbers of the largest outputs of a saved model, as anybody opens it."""
    model, tokenizer = (c.from_pretrained(folder) for c in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        return model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1).numpy()


# --- the rule


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("10 9 -1 0 -2 1", "-2 -1 0 1 9 10"),
        ("0 +1 -1", "-1 0 +1"),
        ("10 9 x", "10 9 x"),  # one word among them, and all are words
        ("1.5 10 2", "1.5 10 2"),
        ("01 1 002", "01 1 002"),
        ("b a C", "C a b"),
    ],
)
def test_whole_numbers_sort_as_numbers_and_all_else_as_strings(names, wanted):
    assert in_order(names.split()) == wanted.split()
    assert in_order(reversed(names.split())) == wanted.split()


# --- files and the command line


def test_outputs_of_a_trained_model_are_the_numbers_of_the_file(tiny, tmp_path, capsys):
    lines = ["text,label", *(f"{t},{y}" for t, y in zip(TEXTS, LABELS, strict=True))]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    (tmp_path / "u.txt").write_text("\n".join(TEXTS))
    assert run(["train", *FLAGS, "--warm-steps", "1", "--model", str(tiny), "--labeled", str(tmp_path / "l.csv"),
                "--output-dir", str(tmp_path / "out")]) == 0  # fmt: skip
    assert (outputs(tmp_path / "out", TEXTS) == LABELS).mean() > 0.9
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {str(i): str(i) for i in NUMBERS}
    capsys.readouterr()
    assert run(["eval", str(tmp_path / "out"), str(tmp_path / "l.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == list(map(str, NUMBERS)) and found["accuracy"] > 0.9
    assert np.trace(found["confusion"]) == round(found["accuracy"] * len(TEXTS))
    assert run(["predict", str(tmp_path / "out"), str(tmp_path / "u.txt"), "--all",
                "--out", str(tmp_path / "p.parquet")]) == 0  # fmt: skip
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names[3:] == [f"probability_{i}" for i in NUMBERS]
    assert np.mean(np.array(table["label"].to_pylist()) == np.array(LABELS).astype(str)) > 0.9
    assert run(["select", str(tmp_path / "u.txt"), "--classifier", str(tmp_path / "out"), "--keep", "1",
                "--out", str(tmp_path / "s.parquet")]) == 0  # fmt: skip
    shown = [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert shown == list(map(str, NUMBERS))


def test_a_model_file_may_list_its_classes_in_any_order(tiny, tmp_path, capsys):
    net = load_text_net(str(tiny), ["b", "a", "c"])
    with torch.no_grad():
        net.classifier.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    net.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"2": "c", "0": "b", "1": "a"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "t.csv").write_text("text,label\na film,b\n")
    assert load_trained(tmp_path).classes == ("b", "a", "c")
    assert run(["eval", str(tmp_path), str(tmp_path / "t.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == ["b", "a", "c"] and found["accuracy"] == 1.0
    texts = pa.chunked_array([pa.array(["a film"], pa.large_string())])
    assert logits_of(tmp_path, texts, ["a", "b", "c"], tmp_path).argmax(1).tolist() == [1]


# --- data sets that declare their classes


def numbered(kind=None):
    """Texts with numbers of classes, as `datasets` has them."""
    labels = LABELS if kind is None else [[y, (y + 5) % 12] for y in LABELS]
    features = Features({"text": Value("string"), "label": ClassLabel(names=NAMES) if kind is None else kind})
    return Dataset.from_dict({"text": TEXTS, "label": labels}, features=features)


def parquet(folder):
    numbered().to_parquet(folder / "d.parquet")
    return folder / "d.parquet"


def zipped(folder):
    (folder / "d.parquet.gz").write_bytes(gzip.compress(parquet(folder).read_bytes()))
    return folder / "d.parquet.gz"


def saved(folder):
    numbered().save_to_disk(folder / "saved")
    return folder / "saved"


SOURCES = {
    "dataset": lambda folder: numbered(),
    "torch": lambda folder: numbered().with_format("torch"),
    "splits": lambda folder: DatasetDict({"train": numbered()}),
    "folder": saved,
    "parquet": parquet,
    "gzip": zipped,
}


@pytest.mark.parametrize("source", SOURCES)
def test_declared_classes_keep_their_numbers(source, tmp_path):
    table, _, _ = by_split(read_table(SOURCES[source](tmp_path)))
    data = build_data(table)
    assert data.classes == tuple(NAMES) and data.labels.tolist() == LABELS
    assert build_data(table.take(np.arange(20))).classes == tuple(NAMES)
    assert joined(table, table_of(["a good film"]), table).classes == tuple(NAMES)


@pytest.mark.parametrize("kind", [Sequence(ClassLabel(names=NAMES)), List(ClassLabel(names=NAMES))])
def test_lists_of_declared_classes_have_their_names(kind, tmp_path):
    data = numbered(kind)
    data.to_parquet(tmp_path / "d.parquet")
    for source in (data, tmp_path / "d.parquet"):
        found = build_data(read_table(source, label_lists=True))
        assert found.classes == tuple(NAMES)
        assert [np.flatnonzero(row).tolist() for row in found.labels] == [sorted({y, (y + 5) % 12}) for y in LABELS]


def test_a_net_trained_on_declared_classes_answers_with_their_numbers(tiny, tmp_path):
    task = text_task(build_data(read_table(parquet(tmp_path))), str(tiny), max_length=24, cache_dir=tmp_path)
    fit(as_method("supervised"), task, STILL).module.save(tmp_path)
    assert (outputs(tmp_path, TEXTS) == LABELS).mean() > 0.9
    assert list(AutoModelForSequenceClassification.from_pretrained(tmp_path).config.id2label.values()) == NAMES


def test_a_number_without_a_name_is_an_error_and_a_column_of_words_has_no_numbers(tmp_path):
    schema = numbered().data.table.schema.with_metadata(pq.read_schema(parquet(tmp_path)).metadata)
    pq.write_table(pa.table([TEXTS[:3], [0, 12, 1]], schema=schema), tmp_path / "beyond.parquet")
    with pytest.raises(DataError, match="label 12 is none of its 12 class names") as caught:
        read_table(tmp_path / "beyond.parquet")
    assert caught.value.code == 152
    words = pa.table({"text": TEXTS[:3], "label": ["b", "a", "b"]}).replace_schema_metadata(schema.metadata)
    pq.write_table(words, tmp_path / "words.parquet")
    assert build_data(read_table(tmp_path / "words.parquet")).classes == ("a", "b")
    same = Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}).cast_column("label", ClassLabel(names=["1", "1.0"]))
    with pytest.raises(DataError, match="two of its class names read '1'"):
        read_table(same)


# --- classes without a labeled row


@pytest.fixture(scope="module")
def gaps(tiny, tmp_path_factory):
    """A task of four declared classes, two of which no row has."""
    labeled, pool, test = tiny_tables(8, 24, 8)
    data = build_data(replace(labeled, classes=("empty", "neg", "void", "pos")), pool, None, test)
    return text_task(
        data, str(tiny), strong=TfidfReplace(0.3), max_length=16, cache_dir=tmp_path_factory.mktemp("gaps")
    )


START = replace(FAST, max_steps=2, warm_start="contrastive", warm_steps=1, align=True)


def test_one_warning_names_them_and_a_class_that_lost_its_rows_is_an_error(gaps):
    (note,) = [note for note in gaps.data.notes if "without a labeled row" in note]
    assert note.startswith("warning: classes without a labeled row: 2 ('empty', 'void')")
    table = table_of(["x", "x", "y", "z"], ["a", "b", "c", "d"])
    with pytest.raises(DataError, match="class 'a' has no usable labeled row left") as caught:
        build_data(replace(table, classes=("e", "d", "c", "b", "a")[::-1]))
    assert caught.value.code == 135


def test_a_started_net_gives_them_less_than_half_a_row(gaps):
    module = gaps.build(0)
    SharedStart(gaps, START)(module)
    p = logits_of_texts(module.eval(), ["good", "bad", "end end", "of a"], 16).softmax(-1)
    assert 0 < float(p[:, [0, 2]].max()) < 0.5 / 8 and (p.argmax(1) % 2 == 1).all()
    shift = adjustment(gaps.data, replace(START, logit_adjustment=1.0))
    assert shift.tolist() == pytest.approx(
        [np.log(4 / 9)] * 4
    )  # of 4, 4 and twice half a row; unseen ones gain nothing


@pytest.mark.parametrize(
    "method", ["supervised", "uda", "fixmatch", "freematch", "flexmatch", "comatch", "label_propagation", "mixmatch"]
)
def test_methods_train_beside_them(gaps, method):
    config = replace(START, logit_adjustment=float(method == "uda"), calibrate="labels" if method == "uda" else "none")
    found = fit(as_method(method), gaps, config)
    assert all(torch.isfinite(value).all() for value in found.module.state_dict().values())
    assert found.scores["test"].accuracy > 0


@pytest.mark.parametrize("source", ["model", "graph"])
def test_rounds_train_beside_them(gaps, tmp_path, source):
    method = SelfTraining(rounds=1, threshold=0.0, source=source)
    found = compare(method, gaps, START, seeds=[0], baseline=False, folder=tmp_path / "out")
    assert found.accuracies()["self_training"][0] > 0
    assert load_trained(tmp_path / "out").classes == ("empty", "neg", "void", "pos")
    read = pq.read_table(tmp_path / "out" / "round-1" / "pseudo_labels.parquet")
    assert set(read["label"].to_pylist()) <= {"neg", "pos"} and len(read["probabilities"][0]) == 4


def test_the_trainer_trains_beside_them(tmp_path, caplog):
    names = ["empty", "neg", "void", "pos"]
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert(tmp_path / "four", classes=4), id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    texts, words = tiny_texts(24, seed=1)
    labeled, pool = Dataset.from_dict({"text": texts[:8], "label": words[:8]}), Dataset.from_dict({"text": texts[8:]})
    args = SSLTrainingArguments(
        str(tmp_path / "out"),
        max_steps=2,
        per_device_train_batch_size=4,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        max_length=24,
        warm_start="contrastive",
        warm_steps=1,
    )
    with caplog.at_level(logging.WARNING, "nlp_ssl"):
        made = SSLTrainer(model, args, None, labeled, None, tiny_tokenizer(), method="uda", unlabeled_dataset=pool)
    assert f"classes without a labeled row: 2 ({names[0]!r}, {names[2]!r})" in caplog.text
    made.train()
    assert made.task.data.classes == tuple(names) and made.task.data.labels[:8].tolist() == [
        names.index(word) for word in words[:8]
    ]
    bias = model.classifier.bias.detach()
    assert float(bias[[0, 2]].max()) < float(bias[[1, 3]].min())
    wrong = labeled.cast_column("label", ClassLabel(names=["neg", "pos"]))
    two = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert(tmp_path / "two"), id2label={0: "pos", 1: "neg"}, label2id={"pos": 0, "neg": 1}
    )
    with pytest.raises(ConfigError, match="counts its classes as neg, pos, the model as pos, neg") as caught:
        SSLTrainer(two, args, None, wrong, None, tiny_tokenizer(), method="supervised")
    assert caught.value.code == 484


# --- the estimator


@pytest.mark.parametrize(
    "y",
    [
        np.array(LABELS, dtype=np.int8),
        np.array([y - 3 for y in LABELS]) * 10,
        np.array([str(y) for y in LABELS]),  # numpy sorts words, so the model does
        np.array(LABELS) % 3 == 0,
    ],
    ids=["int8", "negative", "words", "bool"],
)
def test_the_saved_model_has_the_order_of_the_estimator(tiny, tmp_path, y):
    config = TrainConfig(warm_start="contrastive", warm_steps=1, learning_rate=1e-9, head_learning_rate=1e-9)
    model = SSLClassifier(tiny, "supervised", max_steps=1, max_length=24, config=config).fit(TEXTS, y)
    assert model.classes_.dtype == y.dtype and np.array_equal(model.classes_, np.unique(y))
    model.save_pretrained(tmp_path / "out")
    found = outputs(tmp_path / "out", TEXTS)
    assert np.mean(model.classes_[found] == y) > 0.9
    assert np.array_equal(model.predict_proba(TEXTS).argmax(1), found)
    id2label = json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]
    assert [id2label[str(i)] for i in range(len(id2label))] == list(model.net_.classes)
    assert SSLClassifier.from_pretrained(tmp_path / "out").predict(TEXTS).tolist() == model.predict(TEXTS).tolist()


# --- probabilities in files


def test_lists_of_probabilities_are_in_the_order_of_the_classes(tmp_path):
    data = build_data(table_of(TEXTS, LABELS))
    p = np.full((12, 12), 0.02) + np.eye(12) * 0.76
    lines = [f"{t}\t{y}\t{json.dumps(p[y].tolist())}" for t, y in zip(TEXTS[:12], LABELS[:12], strict=True)]
    (tmp_path / "noisy.tsv").write_text("\n".join(["text\tlabel\tprobabilities", *lines]))
    found = labels_from_file(tmp_path / "noisy.tsv", data.texts, data.classes)
    assert not found.hard and found.p[:12] == pytest.approx(p) and found.label[:12].tolist() == LABELS[:12]
    texts = pa.array(TEXTS[:12], pa.large_string())
    of_texts = replace(found, p=p, copies=found.copies[:12], weights=found.weights[:12])
    write_pseudo_labels(tmp_path / "round.parquet", of_texts, [], data.classes, texts)
    assert pq.read_table(tmp_path / "round.parquet")["label"].to_pylist() == list(map(str, NUMBERS))
    again = labels_from_file(tmp_path / "round.parquet", texts, data.classes)
    assert not again.hard and again.p == pytest.approx(p)


# --- a saved last layer


@pytest.fixture(scope="module")
def trained_model(tiny, tmp_path_factory):
    """A saved model of three classes whose answers to texts differ, and its logits for two of them."""
    folder = tmp_path_factory.mktemp("trained")
    net = load_text_net(str(tiny), ["b", "a", "c"]).eval()
    with torch.no_grad():
        net.classifier.weight.mul_(30)
        net.classifier.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    net.save(folder)
    return folder, logits_of_texts(net, ["good film", "bad plot"], 16)


def said(caplog):
    return [r.message for r in caplog.records if "last layer" in r.message]


@pytest.mark.parametrize("classes", ["b a c", "a b c", "c b a"])
def test_a_saved_last_layer_goes_by_the_names_of_its_classes(trained_model, caplog, classes):
    folder, logits = trained_model
    names = classes.split()
    with caplog.at_level(logging.INFO, "nlp_ssl"):
        net = load_text_net(str(folder), names).eval()
    found = logits_of_texts(net, ["good film", "bad plot"], 16)
    torch.testing.assert_close(found, logits[:, ["bac".index(name) for name in names]], atol=1e-6, rtol=0)
    assert not said(caplog)
    assert net.classes == tuple(names)


@pytest.mark.parametrize("classes", ["a b d", "a b c d", "LABEL_0 LABEL_1 LABEL_2"])
def test_for_other_classes_it_starts_anew_and_the_log_says_so(trained_model, caplog, classes):
    folder, _ = trained_model
    saved_rows = load_text_net(str(folder)).classifier.weight
    with caplog.at_level(logging.INFO, "nlp_ssl"):
        first, _ = (load_text_net(str(folder), classes.split()) for _ in range(2))
    assert said(caplog) == [
        f"the last layer of {folder} is for the classes b, a, c, here they are {classes.replace(' ', ', ')}: it starts "
        "anew"
    ]
    rows = first.classifier.weight.detach()
    assert not first.classifier.bias.any() and 0.01 < float(rows.std()) < 0.03  # BERT starts with 0.02
    assert not torch.isin(rows, saved_rows).any()


def test_names_that_nobody_gave_are_no_names(tmp_path, caplog):
    """A classifier with the library's own names may have been trained for anything; an encoder has no last layer."""
    tiny_bert(tmp_path / "model", names=["LABEL_0", "LABEL_1"])
    saved_rows = load_text_net(str(tmp_path / "model")).classifier.weight
    with caplog.at_level(logging.INFO, "nlp_ssl"):
        assert torch.equal(load_text_net(str(tmp_path / "model"), ["LABEL_0", "LABEL_1"]).classifier.weight, saved_rows)
        assert not said(caplog)
        net = load_text_net(str(tmp_path / "model"), ["neg", "pos"])
        assert len(said(caplog)) == 1 and not torch.isin(net.classifier.weight, saved_rows).any()
        net.model.base_model.save_pretrained(tmp_path / "encoder")
        net.tokenizer.save_pretrained(tmp_path / "encoder")
        load_text_net(str(tmp_path / "encoder"), ["good", "bad"])
    assert len(said(caplog)) == 1


def test_training_goes_on_from_a_model_with_the_classes_in_another_order(trained_model, tmp_path, capsys):
    folder, logits = trained_model
    names = ["bac"[i] for i in logits.argmax(1)]
    (tmp_path / "l.csv").write_text("text,label\nthe end,a\nthe story,b\nthe music,c\n")
    (tmp_path / "t.csv").write_text(f"text,label\ngood film,{names[0]}\nbad plot,{names[1]}\n")
    assert run(["train", *FLAGS, "--warm-start", "none", "--model", str(folder), "--labeled", str(tmp_path / "l.csv"),
                "--test", str(tmp_path / "t.csv"), "--output-dir", str(tmp_path / "out")]) == 0  # fmt: skip
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["scores"]["test"]["accuracy"] == 1.0
    assert load_trained(tmp_path / "out").classes == ("a", "b", "c")


@pytest.mark.parametrize("order", [["pos", "neg"], ["pos", "neg", "empty", "void"]])
def test_a_net_that_is_given_must_have_the_order_of_the_data(gaps, tiny, order):
    teacher = load_text_net(str(tiny), order)
    with pytest.raises(ConfigError) as caught:
        fit(Distillation(), gaps, FAST, frozen_nets={"teacher": teacher})
    assert caught.value.code == 234
    placed = load_text_net(str(tiny), gaps.data.classes)
    fit(Distillation(), gaps, FAST, frozen_nets={"teacher": placed})


# --- what an earlier training noted


@pytest.fixture
def left_over(tiny, tmp_path):
    """A model that once gave pairs of texts several labels."""
    net = load_text_net(str(tiny), ["neg", "pos"])
    net.model.config.problem_type = MULTI_LABEL
    net.model.config.update({PAIRS: True})
    (tmp_path / "old").mkdir()
    net.save(tmp_path / "old")
    return tmp_path / "old"


def test_a_model_is_what_it_was_trained_for_last(left_over, tmp_path, capsys):
    texts, labels = tiny_texts(16, seed=2)
    lines = [f"{t},{y}" for t, y in zip(texts, labels, strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["text,label", *lines[:8]]))
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *lines[8:]]))
    out = tmp_path / "out"
    assert run(["train", *FLAGS, "--warm-start", "none", "--model", str(left_over), "--labeled",
                str(tmp_path / "l.csv"), "--output-dir", str(out)]) == 0  # fmt: skip
    capsys.readouterr()
    assert run(["eval", str(out), str(tmp_path / "t.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 8
    assert run(["predict", str(out), str(tmp_path / "t.csv"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 8 and {row["label"] for row in rows} <= {"neg", "pos"}
    config = json.loads((out / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification" and PAIRS not in config


def test_tasks_of_pairs_and_of_several_labels_note_so(left_over, tmp_path):
    texts, labels = tiny_texts(8, seed=2)
    pair_tokenizer().save_pretrained(left_over)
    tables = table_of(texts, labels, pairs=texts[::-1]), table_of(texts, [[y] for y in labels]), table_of(texts, labels)
    tasks = [text_task(build_data(table), str(left_over), cache_dir=tmp_path, max_length=16) for table in tables]
    found = [(kind_of(net.model.config), of_pairs(net.model.config)) for net in (task.build(0) for task in tasks)]
    assert found == [("single-label", True), ("multi-label", False), ("single-label", False)]


def test_the_trainer_notes_what_it_trained_for(left_over, tmp_path):
    texts, labels = tiny_texts(8, seed=2)
    model = AutoModelForSequenceClassification.from_pretrained(left_over)
    args = SSLTrainingArguments(str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=4, save_strategy="no",
                                report_to=[], use_cpu=True, max_length=24, warm_start="none")  # fmt: skip
    made = SSLTrainer(
        model, args, None, Dataset.from_dict({"text": texts, "label": labels}), None, tiny_tokenizer(),
        method="supervised",
    )  # fmt: skip
    made.train()
    made.save_model(str(tmp_path / "out"))
    net = load_trained(tmp_path / "out")
    assert net.model.config.problem_type == "single_label_classification" and not of_pairs(net.model.config)
