"""SSLClassifier: labels keep their type, columns of any library, and the answers are those of `fit`."""

import json
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted, validate_data
from tiny import BAD, FILLER, GOOD, tiny_bert, tiny_texts
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ssl import UDA, SSLClassifier, TrainConfig, fit
from nlp_ssl.data.arrays import InputError, column, labeled_accuracy, read_labels, read_texts
from nlp_ssl.data.schema import build_data
from nlp_ssl.data.table import table_of
from nlp_ssl.errors import ConfigError, DataError, SSLError
from nlp_ssl.inference.predict import predict, predict_texts
from nlp_ssl.task import text_task
from nlp_ssl.training import model_files

QUICK = TrainConfig(warm_start="none", batch_size=4, mixed_precision="no", learning_rate=1e-3, head_learning_rate=1e-3)
TEXTS, WORDS = tiny_texts(60, seed=0)
KNOWN = 40
NUMBERS = [10 if word == "neg" else 2 for word in WORDS]  # as names "10" comes before "2": columns must follow
MARKED = [label if i < KNOWN else -1 for i, label in enumerate(NUMBERS)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Tokenized texts are cached beside the tests."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


@pytest.fixture(scope="module")
def quick(tiny):
    return SSLClassifier(tiny, "fixmatch", max_steps=2, max_length=24, config=QUICK)


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.getbasetemp()))
        return SSLClassifier(tiny, "fixmatch", max_steps=60, max_length=24, config=QUICK).fit(TEXTS, MARKED)


# --- labels


@pytest.mark.parametrize(
    "given",
    [
        [2, 10, -1, 2],
        [2, 10, None, 2],
        [2, 10, float("nan"), 2],
        np.array([2, 10, -1, 2]),
        np.array([2.0, 10.0, np.nan, 2.0]),
        pd.Series([2, 10, None, 2]),
        pd.Series([2, 10, None, 2], dtype="Int64"),
        pl.Series([2, 10, None, 2]),
        pl.DataFrame({"label": [2, 10, -1, 2]})["label"],
    ],
    ids=lambda v: type(v).__module__ + str(getattr(v, "dtype", "")),
)
def test_whole_numbers_stay_whole_numbers(given):
    found = read_labels(given)
    assert found.classes.dtype == np.int64 and found.classes.tolist() == [2, 10]
    assert found.number.tolist() == [0, 1, -1, 0] and found.names == ["2", "10", None, "2"]


@pytest.mark.parametrize(
    "given",
    [
        ["b", "a", None, "b"],
        ["b", "a", "", "b"],
        ["b", "a", -1, "b"],
        np.array(["b", "a", -1, "b"]),  # which NumPy makes "-1"
        np.array(["b", "a", -1, "b"], dtype=object),
        np.array(["b", "a", "\u200b", "b"]),
        pd.Series(["b", "a", None, "b"]),
        pd.Series(["b", "a", None, "b"], dtype="category"),
        pl.Series(["b", "a", None, "b"]),
    ],
    ids=lambda v: type(v).__module__ + str(getattr(v, "dtype", "")),
)
def test_strings_stay_strings(given):
    found = read_labels(given)
    assert found.classes.tolist() == ["a", "b"] and found.number.tolist() == [1, 0, -1, 1]


def test_truth_values_and_fractions():
    assert read_labels([True, False, None]).classes.tolist() == [False, True]
    assert read_labels(np.array([1.0, 0.0])).classes.dtype == float
    with pytest.raises(ValueError, match="continuous"):
        read_labels([0.5, 1.5])


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ([1, "a"], 191, "mix number and str"),
        ([None, -1], 132, "no row has a label"),
        ([1, 1, -1], 133, "only one class, 1"),
        ([[1], [2, 3]], 115, "not a single class"),
        ([[1, 2], [3, 4]], 190, "y should be a 1d array"),
        ("pos", 190, "y should be a 1d array"),
        ([float("inf"), 1], 115, "inf"),
    ],
)
def test_unusable_labels(given, code, words):
    with pytest.raises(InputError, match=words) as caught:
        read_labels(given)
    assert caught.value.code == code and isinstance(caught.value, ValueError)


def test_labels_that_read_alike(quick):
    with pytest.raises(InputError, match="read alike") as caught:
        clone(quick).fit(["one", "two"], ["1", "1.0"])
    assert caught.value.code == 136


def test_a_class_of_blank_texts_alone(quick):
    with pytest.raises(InputError, match="class 'c' has no usable") as caught:
        clone(quick).fit(["good", "bad", " "], ["a", "b", "c"])
    assert caught.value.code == 135


def test_accuracy_is_of_labeled_rows():
    """Two of the three labeled rows are right; with weights 1, 2, 3 it is 3 of 6."""
    predicted = np.array([1, 2, 2, 2])
    assert labeled_accuracy([1, 2, -1, 1], predicted) == pytest.approx(2 / 3)
    assert labeled_accuracy([1, 2, None, 1], predicted, [1, 2, 9, 3]) == pytest.approx(3 / 6)
    with pytest.raises(InputError, match="no row has a label"):
        labeled_accuracy([None] * 4, predicted)


# --- texts


def test_texts_of_any_library():
    texts = ["good film", "bad plot"]
    for given in (texts, tuple(texts), np.array(texts), np.array(texts, dtype=object), pd.Series(texts, index=[7, 8]),
                  pl.Series(texts), pl.DataFrame({"text": texts})["text"]):  # fmt: skip
        assert column(given, "X").tolist() == texts
    for frame in (pd.DataFrame({"text": texts}), pl.DataFrame({"text": texts})):
        with pytest.warns(UserWarning, match="column-vector"):
            assert column(frame, "X").tolist() == texts


def test_texts_are_cleaned_and_rows_stay():
    assert read_texts(["e\u0301t\u00e9", " ", "a\0b"]) == ["\u00e9t\u00e9", "", "ab"]
    assert read_texts(["", " "]) == ["", ""]


@pytest.mark.parametrize(
    ("given", "code"), [(["a", None], 194), (["a", float("nan")], 194), (["a", 3], 114), ("one text", 190), ([], 102)]
)
def test_unusable_texts(given, code):
    with pytest.raises(DataError) as caught:
        read_texts(given)
    assert caught.value.code == code


# --- the classifier


def test_it_learns_with_columns_in_the_order_of_the_classes(learned):
    assert learned.classes_.tolist() == [2, 10] and learned.net_.classes == ("2", "10")
    found = learned.predict(TEXTS)
    assert found.dtype == np.int64 and (found == NUMBERS).mean() > 0.9
    p = learned.predict_proba(TEXTS)
    assert p.sum(1) == pytest.approx(1.0) and ((p[:, 1] > 0.5) == (np.array(NUMBERS) == 10)).mean() > 0.9
    assert learned.score(TEXTS, NUMBERS) == (found == NUMBERS).mean()
    assert learned.score(TEXTS, MARKED) == (found == NUMBERS)[:KNOWN].mean()


def test_answers_are_those_of_fit(quick, tiny):
    """The same method, texts and seed, by the package's own functions."""
    config = replace(QUICK, max_steps=2, seed=3, warm_start="contrastive", warm_steps=2)
    names = [str(label) if label >= 0 else None for label in MARKED]
    task = text_task(build_data(table_of(TEXTS, names)), str(tiny), max_length=8)
    net = fit(UDA(threshold=0.6), task, config).module
    expected = predict(net, task.data.store, np.arange(len(TEXTS))).softmax(-1).numpy()
    ours = SSLClassifier(tiny, UDA(threshold=0.6), max_steps=2, random_state=3, max_length=8, config=config)
    assert ours.fit(TEXTS, MARKED).predict_proba(TEXTS) == pytest.approx(expected, abs=1e-6)
    other = clone(ours).set_params(random_state=4).fit(TEXTS, MARKED)
    assert np.abs(other.predict_proba(TEXTS) - expected).max() > 1e-4


def test_unlabeled_rows_train(quick):
    used = clone(quick).set_params(method="entropy_min")
    with_pool = used.fit(TEXTS, MARKED).predict_proba(TEXTS)
    without = clone(used).fit(TEXTS[:KNOWN], MARKED[:KNOWN]).predict_proba(TEXTS)
    assert np.abs(with_pool - without).max() > 1e-4


def test_heads_of_the_method_are_no_classes(quick):
    found = clone(quick).set_params(method="comatch").fit(TEXTS, MARKED)
    assert len(found.net_.extra) and found.predict_proba(TEXTS[:3]).shape == (3, 2)
    assert predict_texts(found.net_, TEXTS[:1], 24)[0][0] in ("2", "10")


def test_frames_go_in_and_blank_texts_get_an_answer(quick):
    frame = pd.DataFrame({"text": [*TEXTS, ""], "label": [*MARKED, -1]}).sample(frac=1, random_state=0)
    ours = clone(quick).fit(frame["text"], frame["label"])
    theirs = clone(quick).fit(pl.Series(frame["text"].tolist()), pl.Series(frame["label"].tolist()))
    assert ours.predict_proba(pl.Series(["good", ""])) == pytest.approx(theirs.predict_proba(["good", ""]), abs=1e-6)
    assert any("empty texts dropped" in note for note in ours.notes_)


def test_grid_search_and_pipeline(quick):
    grid = GridSearchCV(
        Pipeline([("lower", FunctionTransformer(lower)), ("classify", clone(quick))]),
        {"classify__method": ["supervised", UDA(threshold=0.6)]}, cv=2, error_score="raise",
    ).fit(TEXTS, MARKED)  # fmt: skip
    assert grid.best_estimator_["classify"].classes_.tolist() == [2, 10]
    assert set(grid.predict(TEXTS)) <= {2, 10} and np.isfinite(grid.cv_results_["mean_test_score"]).all()
    words = [word if i < KNOWN else "" for i, word in enumerate(WORDS)]
    assert np.isfinite(cross_val_score(quick, TEXTS, words, cv=2)).all()


def lower(texts):
    return [text.lower() for text in texts]


def test_parameters():
    method = UDA(threshold=0.7)
    made = SSLClassifier("m", method, max_steps=5, max_length=32, random_state=1)
    assert made.get_params(deep=False) == {
        "model": "m", "method": method, "max_steps": 5, "batch_size": None, "learning_rate": None, "max_length": 32,
        "strong": None, "config": None, "class_names": None, "threshold": 0.5, "random_state": 1, "verbose": True,
    }  # fmt: skip
    assert clone(made).get_params() == made.get_params()
    assert made.get_params()["method__threshold"] == 0.7 and made.get_params()["config__warm_steps"] == 0
    assert made.set_params(method="vat") is made and made.method == "vat"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda q: q.set_params(metod="uda"), 203, "Did you mean 'method'"),
        (lambda q: q.set_params(method__treshold=0.6), 203, "Did you mean 'threshold'"),
        (lambda q: q.set_params(config__batch_sise=5), 203, "Did you mean 'batch_size'"),
        (lambda q: q.set_params(config__warm_start="nome"), 204, "Did you mean 'none'"),
        (lambda q: q.set_params(method="fixmach").fit(TEXTS, MARKED), 201, "Did you mean 'fixmatch'"),
        (lambda q: q.set_params(method="auto").fit(TEXTS, MARKED), 201, "unknown method 'auto'"),
        (lambda q: q.set_params(method=UDA).fit(TEXTS, MARKED), 480, "a method like UDA()"),
        (lambda q: q.set_params(max_steps=0).fit(TEXTS, MARKED), 202, "max_steps must lie"),
        (lambda q: q.set_params(max_steps=2.5).fit(TEXTS, MARKED), 204, "max_steps must be a whole number, not 2.5"),
        (lambda q: q.set_params(learning_rate="1").fit(TEXTS, MARKED), 204, "must be a number, not '1'"),
        (lambda q: q.set_params(config={"warm_steps": 5}).fit(TEXTS, MARKED), 492, "TrainConfig(warm_steps=10)"),
        (lambda q: q.set_params(threshold=2).fit(TEXTS, MARKED), 202, "threshold must lie"),
        (lambda q: q.set_params(strong="synonims").fit(TEXTS, MARKED), 283, "synonims"),
        (lambda q: q.set_params(model="no/such").fit(TEXTS, MARKED), 220, "no/such"),
        (
            lambda q: q.set_params(model=torch.nn.Linear(2, 2)).fit(TEXTS, MARKED),
            491,
            "is a Linear: give a name",
        ),
        (lambda q: q.fit(TEXTS, MARKED, resume=True), 213, "output_dir"),
    ],
)
def test_wrong_parameters(change, code, words, quick):
    with pytest.raises(ConfigError, match="SSL") as caught:
        change(clone(quick))
    assert caught.value.code == code and words in str(caught.value)


def test_lengths_must_agree(quick):
    with pytest.raises(ValueError, match="SSL121: 60 texts but 59 labels"):
        clone(quick).fit(TEXTS, MARKED[:-1])
    for call in (quick.predict, quick.predict_proba):
        with pytest.raises(NotFittedError):
            call(TEXTS)


# --- saved


def test_saved_and_opened_again(learned, tmp_path):
    learned.save_pretrained(tmp_path / "out")
    found = SSLClassifier.from_pretrained(tmp_path / "out")
    assert found.classes_.dtype == np.int64 and found.classes_.tolist() == [2, 10]
    assert found.predict_proba(TEXTS) == pytest.approx(learned.predict_proba(TEXTS), abs=1e-5)
    assert found.get_params() == learned.get_params() | {"model": str(learned.model)}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                     "nlp_ssl_classifier.json"}  # fmt: skip
    found.fit(TEXTS, MARKED).save_pretrained(tmp_path / "out")
    assert SSLClassifier.from_pretrained(tmp_path / "out").predict(TEXTS).tolist() == found.predict(TEXTS).tolist()


def test_the_folder_opens_with_transformers(learned, tmp_path):
    learned.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokens = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        p = model(**tokens).logits.softmax(-1)
    names = [model.config.id2label[i] for i in range(2)]
    assert p[:, [names.index("2"), names.index("10")]].numpy() == pytest.approx(
        learned.predict_proba(TEXTS[:4]), abs=1e-5
    )


def test_a_fitted_classifier_pickles(learned):
    assert (pickle.loads(pickle.dumps(learned)).predict_proba(TEXTS) == learned.predict_proba(TEXTS)).all()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: path.write_text("{"), 192),
        (lambda path: path.write_text("[]"), 192),
        (lambda path: edit(path, lambda saved: saved["params"].update(new=1)), 192),
        (lambda path: edit(path, lambda saved: saved["params"].update(method="no_such")), 192),
        (lambda path: edit(path, lambda saved: saved.update(classes=[2, 11])), 193),
        (lambda path: (path.parent / "model.safetensors").unlink(), 220),
    ],
)
def test_damaged_folders(change, code, learned, tmp_path):
    learned.save_pretrained(tmp_path)
    change(tmp_path / "nlp_ssl_classifier.json")
    with pytest.raises(SSLError) as caught:
        SSLClassifier.from_pretrained(tmp_path)
    assert caught.value.code == code


def edit(path, how):
    saved = json.loads(path.read_text())
    how(saved)
    path.write_text(json.dumps(saved))


def test_saving_that_is_stopped_leaves_the_old_classifier_or_none(learned, tmp_path, monkeypatch):
    learned.save_pretrained(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(learned.net_), "save", stop)
        learned.save_pretrained(tmp_path)
    assert SSLClassifier.from_pretrained(tmp_path).classes_.tolist() == [2, 10]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(model_files.os, "replace", stop)
        learned.save_pretrained(tmp_path)
    with pytest.raises(SSLError, match="SSL220"):
        SSLClassifier.from_pretrained(tmp_path)


def stop(*args):
    raise KeyboardInterrupt


# --- scikit-learn's own checks


class OfNumbers(SSLClassifier):
    """Reads rows of numbers as texts, since scikit-learn checks nothing that takes texts alone."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(self._read(X, reset=True), y, sample_weight=sample_weight)

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(self._read(X, reset=False))

    def _read(self, X, reset):
        words = BAD + FILLER + GOOD
        rows = validate_data(self, X, reset=reset, dtype=np.float64)
        return [" ".join(f"{words[int(10 * v) % len(words)]} {v}" for v in row) for row in rows]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = tags.classifier_tags.poor_score = True  # two steps of random weights
        return tags


NOT_OURS = {  # of the reading of numbers above, which is scikit-learn's
    "check_estimators_nan_inf", "check_complex_data", "check_dtype_object", "check_estimators_dtypes",
    "check_estimator_sparse_tag", "check_estimator_sparse_array", "check_estimator_sparse_matrix",
    "check_f_contiguous_array_estimator", "check_readonly_memmap_input", "check_fit1d", "check_fit2d_1feature",
    "check_estimators_empty_data_messages", "check_classifiers_train", "check_positive_only_tag_during_fit",
    "check_classifier_data_not_an_array", "check_n_features_in", "check_n_features_in_after_fitting",
    "check_fit2d_predict1d",
}  # fmt: skip
EXPECTED = {
    "check_classifiers_classes": "takes -1 for a class, except of scikit-learn's own semi-supervised classifiers",
    "check_sample_weight_equivalence_on_dense_data": "a row in a random batch with weight 2 is not two rows in batches",
}


def checks_of(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = estimator_checks.estimator_checks_generator(
            estimator, legacy=True, expected_failed_checks=EXPECTED, mark="xfail"
        )
        for pair in found:
            _, check = getattr(pair, "values", pair)
            if getattr(check, "func", check).__name__ not in NOT_OURS:
                yield pair


@pytest.mark.parametrize(
    ("estimator", "check"),
    list(checks_of(OfNumbers(None, "supervised", max_steps=1, batch_size=2, max_length=24, config=QUICK))),
    ids=lambda v: getattr(v, "func", v).__name__ if callable(v) else "",
)
def test_checks_of_scikit_learn(estimator, check, tiny):
    check(estimator.set_params(model=tiny))


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable, estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types, estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init, estimator_checks.check_mixin_order,
        estimator_checks.check_parameters_default_constructible, estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
)  # fmt: skip
def test_checks_without_data(check):
    check("SSLClassifier", SSLClassifier())
