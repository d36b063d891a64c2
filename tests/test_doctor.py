"""What doctor finds: every error at once, what may spoil training, and advice whose command line trains."""

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_bert, tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import table_of
from nlp_ssl.doctor import TaskOptions, languages, look
from nlp_ssl.doctor.advice import advise
from nlp_ssl.doctor.fix import fixed
from nlp_ssl.doctor.labels import label_facts, label_warnings
from nlp_ssl.doctor.languages import languages_of
from nlp_ssl.doctor.look import Look, foreign_share
from nlp_ssl.doctor.probe import Probe, probe_of


@pytest.fixture(autouse=True)
def no_languages(request, monkeypatch):
    """The model that tells languages takes a second to load: tests of commands do without."""
    if "files" in request.fixturenames:
        monkeypatch.setattr(look, "languages_of", lambda texts: {})


TEXTS, LABELS = tiny_texts(320, seed=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    tiny_bert(folder / "model")
    table(folder / "l.csv", TEXTS[:24], LABELS[:24])
    table(folder / "t.csv", TEXTS[100:], LABELS[100:])
    (folder / "u.txt").write_text("\n".join(TEXTS[24:100]) + "\n")
    return folder


def table(path, texts, labels, head=("text", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *zip(texts, labels, strict=True)])


def doctor(files, *more, labeled="l.csv", unlabeled="u.txt", test="t.csv"):
    named = {"labeled": labeled, "unlabeled": unlabeled, "test": test}
    flags = [word for name, file in named.items() if file for word in (f"--{name}", str(files / file))]
    return run(["doctor", "--model", str(files / "model"), "--max-length", "24", *flags, *more])


def as_json(files, capsys, *more, **named):
    code = doctor(files, "--json", *more, **named)
    return code, json.loads(capsys.readouterr().out)


def test_whole_files_get_facts_and_a_command_that_trains(files, tmp_path, capsys):
    assert doctor(files) == 0
    shown = capsys.readouterr().out
    assert "ERRORS" not in shown and shown.index("FACTS") < shown.index("NEXT")
    assert "24 labeled, 76 unlabeled, 220 test" in shown and "2: 'neg' 12, 'pos' 12" in shown
    command = shlex.split(shown.strip().splitlines()[-1])
    assert command[:2] == ["nlp-ssl", "train"] and "--baseline" in command
    out = command.index("--output-dir") + 1
    command[out] = str(tmp_path / "out")
    small = ["--max-steps", "1", "--seeds", "1", "--warm-start", "none", "--cache-dir", str(tmp_path / "cache")]
    assert run([*command[1:], *small]) == 0
    assert (tmp_path / "out/model.safetensors").exists()


def test_the_command_names_what_was_named(files, capsys):
    more = ["--drop-leaks", "--labels-per-class", "5", "--unlabeled-value=-1", "--text-column", "text"]
    _, found = as_json(files, capsys, *more, test=None)
    words = shlex.split(found["advice"]["command"])
    assert "--drop-leaks" in words and words[words.index("--labels-per-class") + 1] == "5"
    assert words[words.index("--unlabeled-value") + 1] == "-1" and words[words.index("--max-length") + 1] == "24"
    assert "--test" not in words and "--encoding" not in words
    assert found["facts"]["rows"] == {"labeled": 10, "unlabeled": 90, "dev": 0, "test": 0}


def test_json_has_the_same(files, capsys):
    code, found = as_json(files, capsys)
    assert code == 0 and found["errors"] == []
    assert found["facts"]["rows"] == {"labeled": 24, "unlabeled": 76, "dev": 0, "test": 220}
    assert found["facts"]["classes"] == {"neg": 12, "pos": 12}
    assert found["facts"]["lengths"]["cut"] == 0
    assert 0 <= found["facts"]["separability"]["accuracy"] <= 1
    assert found["advice"]["command"].startswith(f"nlp-ssl train --method {found['advice']['method']} ")


def ragged(folder):
    lines = (folder / "l.csv").read_text().splitlines()
    (folder / "bad.csv").write_text("\n".join([*lines[:3], lines[3] + ",more", *lines[4:8], "one", *lines[9:]]))


def typos(folder):
    names = ["Pos ", *LABELS[1:23], LABELS[23].upper()]
    table(folder / "bad.csv", TEXTS[:24], names)


# How the labeled file is spoilt -> (code of the error, something its line says).
BROKEN = {
    "ragged": (ragged, 111, "bad lines in all: 2"),
    "encoding": (lambda d: (d / "bad.csv").write_bytes((d / "l.csv").read_bytes() + b"caf\xe9,pos\n"), 106, "cp1252"),
    "one class": (lambda d: table(d / "bad.csv", TEXTS[:9], ["pos"] * 9), 133, "label texts of a second class"),
    "spelling": (typos, 136, "spell them alike"),
    "empty": (lambda d: table(d / "bad.csv", [" "] * 9, LABELS[:9]), 102, "empty texts dropped: 9"),
    "leak": (lambda d: table(d / "bad.csv", TEXTS[:9] + TEXTS[100:103], LABELS[:12]), 137, "3 of 220 test texts"),
    "binary": (lambda d: (d / "bad.csv").write_bytes(bytes(range(256)) * 9), 195, "binary data"),
    "excel": (lambda d: (d / "bad.csv").write_bytes(b"PK\x03\x04" + bytes(99)), 195, "an Excel or zip file"),
    "column": (lambda d: table(d / "bad.csv", TEXTS[:9], LABELS[:9], ("text", "kind")), 108, "--label-column"),
    "columns": (lambda d: table(d / "bad.csv", TEXTS[:9], LABELS[:9], ("what", "kind")), 108, "name them with"),
    "missing": (lambda d: (d / "bad.csv").unlink(missing_ok=True), 101, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_gives_the_line_that_train_gives(files, tmp_path, capsys, kind):
    spoil, code, words = BROKEN[kind]
    spoil(files)
    exit_code, found = as_json(files, capsys, labeled="bad.csv")
    assert exit_code == 3 and [e["code"] for e in found["errors"]] == [code] and words in found["errors"][0]["text"]
    assert found["advice"] is None
    names = {"model": "model", "labeled": "bad.csv", "unlabeled": "u.txt", "test": "t.csv"}
    flags = [word for flag, name in names.items() for word in (f"--{flag}", str(files / name))]
    trained = run(["train", *flags, "--output-dir", str(tmp_path / "out")])
    line = capsys.readouterr().err.splitlines()[-1]
    assert trained == 3 and found["errors"][0]["text"].startswith(line)


def test_errors_come_first_and_leave_no_advice(files, capsys):
    BROKEN["one class"][0](files)
    assert doctor(files, labeled="bad.csv") == 3
    shown = capsys.readouterr().out
    assert shown.startswith("ERRORS") and "NEXT: fix the errors" in shown and "nlp-ssl train" not in shown


def test_all_errors_are_shown_at_once(files, capsys):
    lines = (files / "l.csv").read_text().splitlines()
    spoilt = [*lines[:5], "too,many,fields", *lines[5:], f"{TEXTS[120]},pos", "good fun,POS"]
    (files / "many.csv").write_text("\n".join(spoilt) + "\n")
    table(files / "t2.csv", [*TEXTS[100:140], "a", "b", "c"], [*LABELS[100:140], "postive", "other", "other"])
    (files / "u2.csv").write_bytes(b"text\ncaf\xe9 good\n" + "\n".join(TEXTS[24:100]).encode())
    code, found = as_json(files, capsys, labeled="many.csv", unlabeled="u2.csv", test="t2.csv")
    assert code == 3 and [e["code"] for e in found["errors"]] == [111, 106, 136, 134, 137]
    assert "'other' in 2" in found["errors"][3]["text"] and "Did you mean 'pos'" in found["errors"][3]["text"]
    assert found["facts"]["rows"]["labeled"] == 25, "of 24 and two more one is a test text"


def test_misspelt_labels_are_told_once_and_with_the_nearest_name(files, capsys):
    upper = [name.upper() for name in LABELS]
    table(files / "upper.csv", TEXTS[:24], ["Neg " if i == 2 else name for i, name in enumerate(upper[:24])])
    table(files / "t3.csv", [*TEXTS[100:], "a film"], [*upper[100:], "POSS"])
    code, found = as_json(files, capsys, labeled="upper.csv", test="t3.csv")
    assert code == 3 and [e["code"] for e in found["errors"]] == [136, 134]
    assert "Did you mean 'POS'?" in found["errors"][1]["text"]
    assert not any("looks like" in w for w in found["warnings"])


def test_a_test_file_without_any_known_label_is_one_error(files, capsys):
    table(files / "t4.csv", TEXTS[100:], ["other"] * 220)
    code, found = as_json(files, capsys, test="t4.csv")
    assert code == 3 and [e["code"] for e in found["errors"]] == [134]


def test_errors_of_the_model_stand_beside_those_of_the_files(files, capsys):
    code, found = as_json(files, capsys, "--model", "no/such-model", "--labels-per-class", "99")
    assert code == 3 and [e["code"] for e in found["errors"]] == [131, 220]
    code, found = as_json(files, capsys, "--max-length", "65")
    assert code == 3 and [e["code"] for e in found["errors"]] == [229]


def test_no_labels_is_a_usage_error(capsys):
    assert run(["doctor", "--unlabeled", "u.txt"]) == 2
    assert "SSL490" in capsys.readouterr().err


def warned(labels, texts=None, pool=(), test=True):
    labeled = table_of(texts or TEXTS[: len(labels)], labels, source="l.csv")
    scored = table_of(TEXTS[100:], LABELS[100:]) if test else None
    options = TaskOptions()
    data, errors = fixed({"labeled": labeled, "unlabeled": table_of(pool) if pool else None, "test": scored}, options)
    assert data is not None and not errors
    return [f.text for f in label_warnings(labeled, data)], data


def test_nothing_to_warn_of():
    found, _ = warned(LABELS[:20], pool=TEXTS[20:100])
    assert found == []


def test_conflicting_labels_are_named_by_row():
    texts, labels = [*TEXTS[:20], TEXTS[3].upper()], [*LABELS[:20], LABELS[4]]
    found, data = warned(labels, texts, TEXTS[20:100])
    assert found[0].startswith("conflicting labels: l.csv: 1 text with two labels, 2 rows")
    assert f"row 4 says {LABELS[3]!r} and row 21 says {LABELS[4]!r}" in found[0] and len(data.labeled) == 19


def test_rare_labels_that_look_like_common_ones():
    labels = ["negative", "positive"] * 10
    found, _ = warned([*labels, "postive"], pool=TEXTS[21:100], test=False)
    assert any("'postive' in 1 row (l.csv row 21) looks like 'positive' (10 rows)" in f for f in found)
    numbered = ["class1", "class2"] * 10
    data = table_of(TEXTS[:21], [*numbered, "class3"], source="l.csv")
    whole = build_data(data, table_of(TEXTS[21:100]), None, None)
    assert not any("looks like" in f.text for f in label_warnings(data, whole))


@pytest.mark.parametrize(
    ("labels", "texts", "pool", "test", "words"),
    [
        (["pos"] * 8 + ["neg"] * 4, None, TEXTS[20:100], True, "few labels: 'neg' 4"),
        (["pos", "neg"] * 10, ["good fun", "dull plot"] * 10, TEXTS[20:100], True, "only 2 of 20 labeled texts differ"),
        (["pos"] * 50 + ["neg"] * 5, None, TEXTS[60:100] * 9, True, "uneven classes: 'pos' has 50 texts, 'neg' 5"),
        ([*LABELS[:20], "pos", "neg"], [*TEXTS[:20], " ", ""], TEXTS[20:100], True, "l.csv: 2 rows without a text"),
        (LABELS[:20], None, TEXTS[20:100], False, "no test rows"),
        (["pos", "neg", "odd"] * 7, None, TEXTS[21:100], True, "classes without a test row: 'odd'"),
        (LABELS[:20], None, (), True, "no unlabeled texts"),
        (LABELS[:20], None, TEXTS[20:50], True, "a small pool"),
        (LABELS[:20], None, TEXTS[20:90] * 2, True, "50% of the pool repeats"),
    ],
)
def test_what_may_spoil_training(labels, texts, pool, test, words):
    found, _ = warned(labels, texts, pool, test)
    assert any(words in f for f in found), found


def test_few_test_rows_leave_accuracy_open():
    data = build_data(table_of(TEXTS[:20], LABELS[:20]), None, None, table_of(TEXTS[100:150], LABELS[100:150]))
    assert any("50 test rows: an accuracy" in f.text and "14 points" in f.text for f in
               label_warnings(table_of(TEXTS[:20], LABELS[:20]), data))  # fmt: skip


def test_facts_count_rows_and_repeats():
    labeled = table_of([*TEXTS[:20], TEXTS[0]], [*LABELS[:20], LABELS[0]])
    facts = {
        f.name: f.value for f in label_facts(build_data(labeled, table_of([*TEXTS[20:60], TEXTS[20]]), None, None))
    }
    assert facts["rows"] == {"labeled": 21, "unlabeled": 41, "dev": 0, "test": 0}
    assert facts["repeats"] == {"labeled": 1, "unlabeled": 1} and facts["pool"] == pytest.approx(41 / 21)


def directions(rng, at, n):
    x = rng.normal(at, 0.3, (n, 8))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_foreign_texts_are_those_far_from_all_labeled_ones():
    rng = np.random.default_rng(0)
    here, there = np.eye(8)[0], np.eye(8)[1]
    known = directions(rng, here, 100)
    assert foreign_share(known, directions(rng, here, 400)) < 0.12
    assert foreign_share(known, directions(rng, there, 400)) > 0.9
    mixed = np.concatenate([directions(rng, here, 200), directions(rng, there, 200)])
    assert 0.45 < foreign_share(known, mixed) < 0.6
    assert foreign_share(known[:5], mixed) is None


def test_probe_tells_which_classes_lie_apart():
    rng = np.random.default_rng(0)
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    features = np.concatenate([directions(rng, np.eye(8)[i], 20) for i in (0, 1, 1)])
    found = probe_of(features, labels, 0)
    assert found.recall["a"] == 1.0 and found.recall["b"] < 0.8 and found.low < found.accuracy < found.high
    assert {found.confused[0][:2], found.confused[1][:2]} == {("b", "c"), ("c", "b")}
    assert found.chance == pytest.approx(1 / 3) and found.folds == 5
    with_single = probe_of(np.concatenate([features, features[:1]]), [*labels, "alone"], 0)
    assert with_single.texts == 60 and probe_of(features[:20], labels[:20], 0) is None


def test_languages_by_part():
    pytest.importorskip("py3langid")
    english, german = "who was the first president of this country", "das ist ein sehr altes Haus in der Stadt"
    found = languages_of({"labeled": [english] * 10, "unlabeled": [german, english] * 5, "few": [german] * 9})
    assert "few" not in found
    assert found["labeled"] == {"en": 1.0} and found["unlabeled"] == {"de": 0.5, "en": 0.5}
    seen = seen_as(languages=found)
    assert any("other languages in the pool: de 50%" in f.text for f in seen.warnings())


def test_without_the_package_languages_are_left_out(monkeypatch):
    monkeypatch.setattr(languages.importlib.util, "find_spec", lambda name: None)
    assert languages_of({"labeled": ["a text"]}) is None
    assert any("pip install" in f.text for f in seen_as(languages=None).facts())
    assert any("too few texts" in f.text for f in seen_as(languages={}).facts())


def seen_as(accuracy=0.8, low=0.55, **given):
    probe = Probe(40, 5, accuracy, low, 1.0, 0.5, {"neg": accuracy, "pos": accuracy}, {"neg": 20, "pos": 20}, ())
    usual = {"lengths": np.full(100, 20), "max_length": 24, "longest": 64, "languages": {}, "foreign": 0.05,
             "pool_texts": 100, "probe": probe}  # fmt: skip
    return Look(**{**usual, **given})


def test_what_the_encoder_sees_is_warned_of():
    assert list(seen_as().warnings()) == []
    assert "another domain: 40%" in next(seen_as(foreign=0.4).warnings()).text
    long = seen_as(lengths=np.array([20] * 80 + [40] * 20))
    assert "20% of the texts are longer than 24 tokens and are cut: --max-length 64" in next(long.warnings()).text
    assert "reads no further" in next(seen_as(lengths=np.full(9, 99), max_length=64).warnings()).text
    assert "hard to predict: 'neg' (recall 50%), 'pos'" in next(seen_as(accuracy=0.5).warnings()).text


def test_advice_follows_what_was_found():
    labeled = table_of(TEXTS[:20], LABELS[:20])
    with_pool = build_data(labeled, table_of(TEXTS[20:100]), None, None)
    assert advise(build_data(labeled, None, None, None), seen_as()).method == "supervised"
    assert advise(with_pool, seen_as(0.9)).method == "label_propagation"
    hard = advise(with_pool, seen_as(0.6))
    assert hard.method == "uda" and any("More labels" in reason for reason in hard.reasons)
    assert any("too few labels to see" in reason for reason in advise(with_pool, seen_as(probe=None)).reasons)
    assert advise(with_pool, seen_as(0.7, low=0.48)).method == "uda", "may as well be guessing"
    large = build_data(labeled, table_of([f"{text} {i}" for i in range(300) for text in TEXTS[20:90]]), None, None)
    assert advise(large, seen_as(0.9)).method == "softmatch"
    many = table_of([f"{t} {i}" for i in range(10) for t in TEXTS[:20]], LABELS[:20] * 10)
    rich = advise(build_data(many, table_of(TEXTS[20:100]), None, None), seen_as(0.9))
    assert any("100 and more labels" in reason for reason in rich.reasons)
    assert not any("and more labels" in reason for reason in advise(with_pool, seen_as(0.9)).reasons)


def test_the_advice_says_what_the_benchmark_shows():
    """Gains over the labels alone, paired by seed, as `scripts/bench/results` has them."""
    results = Path(__file__).parents[1] / "scripts/bench/results"

    def gains(name, method):
        runs = json.loads((results / f"{name}.json").read_text())["runs"]
        by_seed = {(r["name"], r["seed"]): r["accuracy"] for r in runs}
        return np.array([by_seed[method, s] - by_seed["supervised", s] for s in (0, 1, 2)])

    for method, pool in (("label_propagation", 100), ("softmatch", 30_000)):
        texts = [f"{TEXTS[i % 80 + 20]} {i}" for i in range(pool)]
        data = build_data(table_of(TEXTS[:20], LABELS[:20]), table_of(texts), None, None)
        found = advise(data, seen_as(0.9))
        assert found.method == method and "better than the labels alone with every seed" in found.reasons[0]
        for name in ("methods_trec6", "methods_ag_news"):
            assert gains(name, method).min() > 0, (method, name)
    for name in ("methods_trec6", "methods_ag_news"):
        assert gains(name, "label_propagation").mean() > gains(name, "softmatch").mean()


def test_copies_of_labeled_texts_are_looked_at_once(files, capsys):
    """A copy would be judged by a fit on itself."""
    table(files / "copies.csv", TEXTS[:4] * 6, LABELS[:4] * 6)
    code, found = as_json(files, capsys, labeled="copies.csv")
    assert code == 0 and found["facts"]["separability"]["texts"] == 4
    assert any("only 4 of 24 labeled texts differ" in w for w in found["warnings"])


def test_classes_of_few_texts_are_not_called_hard_to_tell():
    probe = Probe(6, 2, 0.0, 0.0, 0.5, 0.5, {"neg": 0.0, "pos": 0.0}, {"neg": 4, "pos": 2}, ())
    assert list(seen_as(probe=probe).warnings()) == []
