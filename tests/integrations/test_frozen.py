"""Estimators on frozen embeddings: scikit-learn's checks, the graph's own numbers, pipelines over texts."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from tiny import tiny_bert, tiny_texts

from nlp_ssl import LabelPropagationClassifier, SentenceEmbedding
from nlp_ssl.data.arrays import InputError
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.graph.propagation import propagate
from nlp_ssl.inference.embedder import Embedder

MINUS_ONE = "takes -1 for a class, except of scikit-learn's own semi-supervised classifiers"
TEXTS, WORDS = tiny_texts(80, seed=0)
KNOWN = 20
MARKED = [word if i < KNOWN else -1 for i, word in enumerate(WORDS)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("tiny") / "model")


def blobs(n=90, classes=3, known=4, seed=0):
    """Rows around centres, their classes 5, 6, ... and labels of which the first few of each class are known."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(n) % classes)
    rows = 3 * rng.standard_normal((classes, 8))[truth] + rng.standard_normal((n, 8))
    given = np.full(n, -1)
    for c in range(classes):
        given[np.flatnonzero(truth == c)[10 : 10 + known]] = c + 5
    return rows, truth + 5, given


@parametrize_with_checks(
    [LabelPropagationClassifier(), LabelPropagationClassifier(head="neighbors")],
    expected_failed_checks=lambda estimator: {"check_classifiers_classes": MINUS_ONE},
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable, estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_valid_tag_types, estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init, estimator_checks.check_mixin_order,
        estimator_checks.check_parameters_default_constructible, estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params, estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    ],
)  # fmt: skip
def test_checks_without_data(check):
    check("SentenceEmbedding", SentenceEmbedding())


# --- label propagation


@pytest.mark.parametrize("head", ["logistic", "neighbors"])
def test_new_rows_get_the_class_they_lie_in(head):
    rows, truth, given = blobs(120)
    model = LabelPropagationClassifier(10, head=head).fit(rows[:90], given[:90])
    assert model.classes_.tolist() == [5, 6, 7] and model.predict(rows[90:]).dtype == given.dtype
    assert (model.predict(rows[90:]) == truth[90:]).mean() > 0.9
    assert model.predict_proba(rows[90:]).sum(1) == pytest.approx(1.0)
    assert model.score(rows[:90], given[:90]) == 1.0  # of the labeled rows
    assert np.mean(model.transduction_ == truth[:90]) > 0.9


def test_graph_and_head_by_their_parts():
    """`propagate` on the labeled rows first; then logistic regression on its classes, as sure as it is of them."""
    rows, _, given = blobs()
    rows = rows / 3 + np.random.default_rng(0).standard_normal(rows.shape)  # not sure of all
    first = np.concatenate([np.flatnonzero(given >= 0), np.flatnonzero(given < 0)])
    found = propagate(
        torch.from_numpy(rows[first]), torch.from_numpy(given[given >= 0] - 5), 3, k=7, gamma=2.0, alpha=0.8,
        prior=[0.5, 0.3, 0.2],
    )  # fmt: skip
    model = LabelPropagationClassifier(7, gamma=2.0, alpha=0.8, prior=[5, 3, 2]).fit(rows, given)
    assert model.label_distributions_[first] == pytest.approx(found.p.numpy())
    centred = rows - rows.mean(0)
    centred /= np.linalg.norm(centred, axis=1).mean()
    head = LogisticRegression(C=10.0, max_iter=1000).fit(centred[first], found.p.argmax(1), sample_weight=found.weights)
    assert model.predict_proba(rows) == pytest.approx(head.predict_proba(centred), abs=1e-4)


def test_neighbors_by_hand():
    """A row at cosines 0.8 and 0.6 from two labeled ones: with gamma 2 they count 0.64 and 0.36.

    The mean of the four rows is 0 and their lengths are 1, so that centring and scaling change nothing.
    """
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    model = LabelPropagationClassifier(2, gamma=2.0, head="neighbors").fit(rows, [0, 1, 0, 1])
    assert model.predict_proba([[0.8, 0.6], [0.6, 0.8]]) == pytest.approx(np.array([[0.64, 0.36], [0.36, 0.64]]))


@pytest.mark.parametrize("head", ["logistic", "neighbors"])
def test_rows_that_no_label_reaches_get_the_answer_of_the_head(head):
    """Two far pairs; only the first pair's rows are joined to labels."""
    rows = np.array([[1.0, 0.0, 0.0], [1.0, 0.1, 0.0], [-1.0, 0.0, 0.0], [-1.0, 0.1, 0.0], [0, 0, 5.0], [0, 0, 5.1]])
    model = LabelPropagationClassifier(1, head=head).fit(rows, [0, None, 1, None, None, None])
    assert model.label_distributions_.sum(1) == pytest.approx(1.0)
    assert model.label_distributions_[4:] == pytest.approx(model.predict_proba(rows[4:]))
    assert model.transduction_[:4].tolist() == [0, 0, 1, 1]


def test_even_classes_take_even_shares():
    rows, _, given = blobs(90, known=2, seed=3)
    rows = rows / 3 + np.random.default_rng(0).standard_normal(rows.shape)  # a harder graph, of unequal pull
    shares = {
        prior: np.bincount(LabelPropagationClassifier(10, alpha=0.99, prior=prior).fit(rows, given).transduction_ - 5)
        for prior in (None, "even")
    }
    assert np.ptp(shares["even"]) < np.ptp(shares[None])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"head": "logistik"}, 204, "Did you mean 'logistic'"),
        ({"prior": "evn"}, 482, "'even'"),
        ({"prior": [1, 2]}, 482, "each of 3 classes"),
        ({"prior": [1, 2, 0]}, 482, "positive"),
        ({"alpha": 1.0}, 202, "alpha must lie"),
        ({"gamma": -1.0}, 202, "gamma must lie"),
        ({"n_neighbors": 0}, 202, "n_neighbors must lie"),
    ],
)
def test_wrong_parameters(options, code, words):
    rows, _, given = blobs()
    with pytest.raises(ConfigError) as caught:
        LabelPropagationClassifier(**options).fit(rows, given)
    assert caught.value.code == code and words in str(caught.value)


def test_labels_of_one_class():
    with pytest.raises(InputError, match="only one class"):
        LabelPropagationClassifier().fit([[0.0], [1.0]], ["a", None])


# --- over texts


def test_embeddings_are_those_of_the_encoder(tiny):
    found = SentenceEmbedding(tiny).fit_transform([*TEXTS[:2], " "])
    assert found[:2] == pytest.approx(Embedder(str(tiny))(TEXTS[:2]), abs=1e-6) and found.shape == (3, 32)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    frame = SentenceEmbedding(tiny).set_output(transform="pandas").fit_transform(TEXTS[:2])
    assert frame.columns[31] == "sentenceembedding31"
    with pytest.raises(DataError, match="row 2 is missing"):
        SentenceEmbedding(tiny).transform(["a", None])
    with pytest.raises(ConfigError, match="no/such"):
        SentenceEmbedding("no/such").transform(["a"])


@pytest.mark.parametrize(
    "last",
    [LabelPropagationClassifier(10), SelfTrainingClassifier(LogisticRegression(C=10.0))],
    ids=["propagation", "self-training"],
)
def test_pipelines_over_texts(tiny, last):
    model = make_pipeline(SentenceEmbedding(tiny), clone(last)).fit(TEXTS, np.array(MARKED, dtype=object))
    assert model.classes_.tolist() == ["neg", "pos"]
    assert model.score(TEXTS[:KNOWN], WORDS[:KNOWN]) > 0.8
    assert set(model.predict(TEXTS)) == {"neg", "pos"}


def test_grid_search_over_texts(tiny):
    pipe = make_pipeline(SentenceEmbedding(tiny), LabelPropagationClassifier())
    marked = ["" if label == -1 else label for label in MARKED]
    grid = GridSearchCV(pipe, {"labelpropagationclassifier__n_neighbors": [5, 10]}, cv=3, error_score="raise")
    found = grid.fit(TEXTS, marked).cv_results_["mean_test_score"]
    assert np.isfinite(found).all() and set(grid.predict(TEXTS)) <= {"neg", "pos"}
