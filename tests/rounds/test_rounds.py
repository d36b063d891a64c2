"""Methods in rounds: golden numbers by hand in float64, their rounds, and the files that they leave."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tiny import FAST, difference, tiny_bert, tiny_images, tiny_task

from nlp_ssl import UST, Distillation, NoisyStudent, SelfTraining, Supervised, fit
from nlp_ssl.data.pseudo_labels import labels_from_file, read_pseudo_labels, write_pseudo_labels
from nlp_ssl.data.table import table_of
from nlp_ssl.errors import ConfigError, DataError, RunError
from nlp_ssl.experiments.compare import compare
from nlp_ssl.inference.predict import predict, predict_sampled
from nlp_ssl.inference.teacher import joined, logits_of
from nlp_ssl.registry import get_method, list_methods
from nlp_ssl.rounds import engine
from nlp_ssl.rounds.engine import fit_rounds, with_labels
from nlp_ssl.rounds.teacher import Teacher
from nlp_ssl.rounds.ust import draw, uncertainty
from nlp_ssl.training.loop import train
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.types import PseudoLabels

QUICK = replace(FAST, max_steps=4)


@pytest.fixture
def task(tmp_path):
    return tiny_task(tmp_path, dropout=0.1)


def teacher_of(p, prior=None, samples=()):
    """A teacher that says p."""
    return SimpleNamespace(
        p=torch.tensor(p, dtype=torch.float64), prior=prior, samples=lambda rows, passes: iter(samples),
        rng=lambda: np.random.default_rng(0),
    )  # fmt: skip


# --- golden numbers ---------------------------------------------------------------------------------------------------


def test_self_training_takes_the_classes_that_reach_the_threshold():
    logits = torch.tensor([[4.0, 0.2, -0.5], [0.1, 0.0, 0.2], [-1.0, 2.5, -1.0], [-2.0, 1.0, 5.5]], dtype=torch.float64)
    found = SelfTraining(threshold=0.9).label(teacher_of(logits.softmax(-1).tolist()))
    assert found.label.tolist() == [0, 2, 1, 2] and found.copies.tolist() == [1, 0, 1, 1] and found.hard
    assert found.targets()[[0, 2, 3]].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert SelfTraining(threshold=1.0).label(teacher_of(logits.softmax(-1).tolist())).copies.sum() == 0


def test_self_training_takes_equally_many_of_each_class():
    p = [[0.9, 0.1], [0.95, 0.05], [0.99, 0.01], [0.3, 0.7], [0.45, 0.55]]
    assert SelfTraining(threshold=0.0, per_class=1).label(teacher_of(p)).copies.tolist() == [0, 0, 1, 1, 0]
    assert SelfTraining(threshold=0.6, per_class=2).label(teacher_of(p)).copies.tolist() == [0, 1, 1, 1, 0]


def test_rows_that_nothing_is_known_of_are_never_learned():
    p = [[0.9, 0.1], [0.0, 0.0], [0.4, 0.6]]
    for method in (SelfTraining(threshold=0.0), NoisyStudent(floor=0.0), UST(share=1.0)):
        passes = [torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)] * 3
        assert method.label(teacher_of(p, samples=passes)).copies[1] == 0, method


def test_noisy_student_takes_the_surest_and_repeats_what_is_rare():
    """Six rows of which class 0 has four and class 1 two; three are wanted of each, then five."""
    p = [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]]
    assert NoisyStudent(per_class=3).label(teacher_of(p)).copies.tolist() == [1, 0, 1, 1, 2, 1]
    assert NoisyStudent(per_class=5).label(teacher_of(p)).copies.tolist() == [2, 1, 1, 1, 3, 2]
    assert NoisyStudent().label(teacher_of(p)).copies.tolist() == [1, 0, 1, 1, 2, 1]  # half of six rows each
    thirds = torch.tensor([2 / 3, 1 / 3])
    assert NoisyStudent().label(teacher_of(p, prior=thirds)).copies.tolist() == [1, 1, 1, 1, 1, 1]
    assert NoisyStudent(floor=0.75, per_class=2).label(teacher_of(p)).copies.tolist() == [1, 0, 1, 0, 1, 1]


def test_noisy_student_sharpens_its_targets():
    """.8^2 / (.8^2 + .2^2) = 16 / 17."""
    found = NoisyStudent(temperature=0.5).label(teacher_of([[0.8, 0.2], [0.3, 0.7]]))
    assert found.targets()[0] == pytest.approx([16 / 17, 1 / 17], abs=1e-9)
    assert NoisyStudent(hard=True).label(teacher_of([[0.8, 0.2], [0.3, 0.7]])).targets().tolist() == [[1, 0], [0, 1]]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def h(*p):
    return -sum(x * math.log(x) for x in p if x > 0)


def test_ust_uncertainty_by_hand():
    """Two passes over two rows; the second row's are equal, so that its net has no doubts."""
    passes = [f64([[0.9, 0.1], [0.7, 0.3]]), f64([[0.3, 0.7], [0.7, 0.3]])]
    bald, variance = uncertainty(passes, torch.tensor([0, 0]))
    assert float(bald[0]) == pytest.approx(h(0.6, 0.4) - (h(0.9, 0.1) + h(0.3, 0.7)) / 2, abs=1e-12)
    assert variance.tolist() == pytest.approx([0.09, 0.0], abs=1e-12) and float(bald[1]) == pytest.approx(
        0.0, abs=1e-12
    )


def test_ust_measures_the_variance_of_the_predicted_class():
    """Over three classes that of the first one is another: (.1, .1) does not move while (.5, .3) does."""
    passes = [f64([[0.1, 0.5, 0.4]]), f64([[0.1, 0.3, 0.6]])]
    assert float(uncertainty(passes, torch.tensor([1]))[1][0]) == pytest.approx(0.01, abs=1e-12)
    assert float(uncertainty(passes, torch.tensor([0]))[1][0]) == pytest.approx(0.0, abs=1e-12)


def test_ust_weighs_by_the_logarithm_of_the_variance():
    passes = [f64([[0.9, 0.1], [0.3, 0.7]]), f64([[0.7, 0.3], [0.3, 0.7]])]
    found = UST(share=1.0, alpha=0.1).label(teacher_of([[0.8, 0.2], [0.3, 0.7]], samples=passes))
    assert found.weights.tolist() == pytest.approx([-0.1 * math.log(0.01 + 1e-10), -0.1 * math.log(1e-10)], abs=1e-9)
    assert found.copies.tolist() == [1, 1] and found.label.tolist() == [0, 1]
    doubled = UST(share=1.0, alpha=0.2).label(teacher_of([[0.8, 0.2], [0.3, 0.7]], samples=passes))
    assert doubled.weights == pytest.approx(2 * found.weights)


def test_ust_draws_as_many_of_each_class_in_proportion_to_their_chances():
    rng, label = np.random.default_rng(0), np.array([0] * 50 + [1] * 3)
    drawn = draw(np.ones(53), label, 20, 2, rng)
    assert (label[drawn] == 0).sum() == 10 and (label[drawn] == 1).sum() == 10  # the three are repeated
    assert len(set(drawn[label[drawn] == 0].tolist())) == 10  # no repeats where there are enough
    chance = np.where(np.arange(53) < 25, 0.0, 1.0)
    many = draw(chance, label, 20, 2, rng)
    assert (many[label[many] == 0] >= 25).all()


def test_easy_or_hard_rows_are_drawn_first():
    """Row 0 is certain, row 1 as uncertain as can be: BALD is ln 2."""
    passes = [f64([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
              f64([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])] * 2  # fmt: skip
    p = [[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]]
    easy = [UST(share=2 / 3).label(teacher_of(p, samples=passes)).copies[:2].tolist() for _ in range(1)]
    hard = UST(share=2 / 3, easy=False).label(teacher_of(p, samples=passes)).copies[:2].tolist()
    assert hard == [0, 1] and sum(easy[0]) == 1


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_dropout_samples_are_a_function_of_the_seed_and_leave_the_net_alone(task):
    module, data = task.build(0), task.data
    module.train()
    before, state = {m: m.training for m in module.modules()}, torch.random.get_rng_state()
    one, two = (list(predict_sampled(module, data.store, data.unlabeled, passes=2, seed=5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) and not torch.equal(one[0], one[1])
    other = next(predict_sampled(module, data.store, data.unlabeled, passes=1, seed=6))
    plain = predict(module, data.store, data.unlabeled)
    assert not torch.equal(other, one[0]) and not torch.allclose(one[0], plain, atol=1e-3)
    assert {m: m.training for m in module.modules()} == before and torch.equal(torch.random.get_rng_state(), state)


def test_without_dropout_samples_are_predictions(tmp_path):
    task = tiny_task(tmp_path, dropout=0.0)
    module = task.build(0)
    for m in module.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0
    (found,) = predict_sampled(module, task.data.store, task.data.unlabeled, passes=1, seed=0)
    assert torch.allclose(found, predict(module, task.data.store, task.data.unlabeled), atol=1e-6)


def test_samples_of_images_use_the_norms_statistics():
    task = tiny_images()
    module = task.build(0)
    stats = {k: v.clone() for k, v in module.state_dict().items()}
    (found,) = predict_sampled(module, task.data.store, task.data.unlabeled, passes=1, seed=0)
    assert torch.allclose(found, predict(module, task.data.store, task.data.unlabeled), atol=1e-5)  # no dropout
    assert all(torch.equal(stats[k], v) for k, v in module.state_dict().items())


def test_a_teacher_is_aligned_to_the_shares_of_the_pool(task):
    data = replace(task.data, prior=(0.3, 0.7))
    teacher = Teacher(task.build(0), data, FAST, 1)
    own = predict(task.build(0), data.store, data.unlabeled).double().softmax(-1)
    q = own * (torch.tensor([0.3, 0.7], dtype=torch.float64) + 1e-6) / (own.mean(0) + 1e-6)
    assert torch.allclose(teacher.p, q / q.sum(1, keepdim=True), atol=1e-6)
    alone = Teacher(task.build(0), task.data, replace(FAST, align=False), 1)
    assert alone.prior is None and torch.allclose(alone.p, own, atol=1e-6)


# --- rounds -----------------------------------------------------------------------------------------------------------


def labels_of(task, **more):
    size, classes = len(task.data.unlabeled), len(task.data.classes)
    p = np.random.default_rng(0).dirichlet(np.ones(classes), size)
    copies = (np.arange(size) % 3 == 0).astype(np.int64)
    return PseudoLabels(p, copies, np.linspace(0.5, 1.5, size), **more)


def test_labels_join_the_labeled_rows_which_are_repeated_where_they_would_drown(task):
    labels, data = labels_of(task, hard=False), task.data
    assert len(data.labeled) == 16 and len(data.unlabeled) == 96
    found = with_labels(data, labels, ratio=1.0)
    assert len(found.labeled) == 2 * 16 + 32  # 32 rows of the pool: the 16 are there twice
    assert found.labeled[:32].tolist() == [*data.labeled, *data.labeled]
    assert found.labeled[32:].tolist() == data.unlabeled[::3].tolist()
    assert (found.targets[:16] == np.eye(2)[data.labels[data.labeled]]).all() and (found.weights[:32] == 1).all()
    assert (found.targets[32:] == labels.p[::3]).all() and (found.weights[32:] == labels.weights[::3]).all()
    assert set(found.unlabeled) == set(data.unlabeled) - set(data.unlabeled[::3])
    assert len(with_labels(data, labels, ratio=3.0).labeled) == 16 + 32
    assert found.content_hash != data.content_hash
    assert with_labels(data, replace(labels, weights=labels.weights + 1), 1.0).content_hash != found.content_hash


def test_copies_count_as_rows_and_hard_labels_as_classes(task):
    labels = replace(labels_of(task), copies=np.where(np.arange(96) == 5, 3, 0))
    found = with_labels(task.data, labels, ratio=1.0)
    assert found.labeled[16:].tolist() == [task.data.unlabeled[5]] * 3
    assert (found.targets[16:] == np.eye(2)[labels.p[5].argmax()]).all()


class Fixed(SelfTraining):
    """Says what it is told."""

    def label(self, teacher):
        return self.__dict__["said"][teacher.number - 1]


def fixed(*said):
    method = Fixed(rounds=len(said))
    object.__setattr__(method, "said", said)
    return method


def test_a_round_is_supervised_training_from_the_start_on_labels_and_pseudo_labels(task, tmp_path):
    """Also in the second round: the first one's student leaves nothing behind but its answers."""
    first, second = labels_of(task), replace(labels_of(task), copies=(np.arange(96) % 2).astype(np.int64))
    fit_rounds(fixed(first, second), task, QUICK, folder=RunFolder(tmp_path / "out"))
    rows = replace(QUICK, batch_size=QUICK.batch_size * (1 + QUICK.unlabeled_ratio))
    data = with_labels(task.data, second, QUICK.unlabeled_ratio)
    alone = fit(Supervised(), replace(task, data=data), rows, folder=tmp_path / "alone")
    assert alone.steps == 4
    assert same_model(tmp_path / "out", tmp_path / "alone") and same_model(tmp_path / "out/round-2", tmp_path / "alone")
    assert not same_model(tmp_path / "out/round-1", tmp_path / "alone")
    lines = [json.loads(line) for line in (tmp_path / "out/rounds.jsonl").read_text().splitlines()]
    assert [line.get("mask_rate") for line in lines] == [None, pytest.approx(1 / 3), 0.5]
    assert [line.get("changed") for line in lines] == [None, None, 0.0]
    assert [sum(line.get("pseudo_hist", [])) for line in lines] == [0, 1, 1]


def same_model(a, b):
    one, two = (load_file(folder / "model.safetensors") for folder in (a, b))
    return all(torch.equal(one[k], two[k]) for k in one)


def test_noisy_students_see_strong_views_and_teachers_and_other_students_plain_ones(task, monkeypatch):
    views, real = [], train

    def watched(*given, **more):
        views.append(given[1].augment["weak"])
        return real(*given, **more)

    monkeypatch.setattr(engine, "train", watched)
    fit_rounds(NoisyStudent(rounds=1), task, QUICK)
    fit_rounds(SelfTraining(rounds=1, threshold=0.0), task, QUICK)
    weak, strong = task.augment["weak"], task.augment["strong"]
    assert views == [weak, strong, weak, weak] and weak != strong


def test_rounds_end_when_the_labels_stay_the_same(task, tmp_path):
    labels = labels_of(task)
    fit_rounds(fixed(labels, labels, labels), task, QUICK, folder=RunFolder(tmp_path))
    assert [json.loads(line)["round"] for line in (tmp_path / "rounds.jsonl").read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize(("dev", "chosen"), [([0.5, 0.9, 0.7], 1), ([0.5, 0.9, 0.9], 1), ([0.9, 0.9, 0.7], 0)])
def test_the_best_round_on_dev_rows_is_the_result(task, tmp_path, monkeypatch, dev, chosen):
    """The earliest of equals."""
    data = replace(task.data, dev=task.data.test, test=task.data.test[:0])
    first, second = labels_of(task), replace(labels_of(task), copies=(np.arange(96) % 2).astype(np.int64))
    real, accuracies = train, iter(dev)

    def scored(*given, **more):
        result = real(*given, **more)
        result.scores["dev"] = replace(result.scores["dev"], accuracy=next(accuracies))
        return result

    monkeypatch.setattr(engine, "train", scored)
    found = fit_rounds(fixed(first, second), replace(task, data=data), QUICK, folder=RunFolder(tmp_path / "out"))
    assert found.scores["dev"].accuracy == 0.9 and same_model(tmp_path / "out", tmp_path / f"out/round-{chosen}")


@pytest.mark.parametrize("dies_in", [1, 2, 3])
def test_a_killed_run_goes_on_to_the_same_model(task, tmp_path, monkeypatch, dies_in):
    method = UST(rounds=3, passes=2, share=0.5)
    whole = fit_rounds(method, task, QUICK, folder=RunFolder(tmp_path / "whole"))
    real, calls = train, []

    def dying(*given, **more):
        calls.append(1)
        if len(calls) == dies_in + 1:
            raise KeyboardInterrupt
        return real(*given, **more)

    monkeypatch.setattr(engine, "train", dying)
    with pytest.raises(KeyboardInterrupt):
        fit_rounds(method, task, QUICK, folder=RunFolder(tmp_path / "cut"))
    monkeypatch.setattr(engine, "train", real)
    again = fit_rounds(method, task, QUICK, folder=RunFolder(tmp_path / "cut", resume=True))
    assert same_model(tmp_path / "whole", tmp_path / "cut") and again.scores == whole.scores
    lines = [[json.loads(line) for line in (tmp_path / f / "rounds.jsonl").read_text().splitlines()]
             for f in ("whole", "cut")]  # fmt: skip
    assert [{k: v for k, v in line.items() if k != "seconds"} for line in lines[0]] == [
        {k: v for k, v in line.items() if k != "seconds"} for line in lines[1]
    ]


def test_a_finished_run_is_not_repeated_and_another_loop_is_refused(task, tmp_path, monkeypatch):
    def run(method):
        return compare(method, task, QUICK, seeds=[0], baseline=True, folder=RunFolder(tmp_path / "out", resume=True))

    first = run(SelfTraining(rounds=1, threshold=0.5))
    monkeypatch.setattr(engine, "train", None)
    assert run(SelfTraining(rounds=1, threshold=0.5)).outcomes[0].scores == first.outcomes[0].scores
    assert set(first.results) == {"supervised", "self_training"}
    with pytest.raises(ConfigError, match="SSL214.*options.threshold: 0.5 -> 0.6"):
        run(SelfTraining(rounds=1, threshold=0.6))


def test_without_a_pool_a_loop_is_supervised_training(task, tmp_path):
    bare = replace(task, data=task.data.without_pool())
    found = compare(SelfTraining(), bare, QUICK, seeds=[0], baseline=True)
    assert found.results["self_training"][0].scores == found.results["supervised"][0].scores


def test_students_of_another_model_learn_what_the_teacher_said(task, tmp_path):
    other = tiny_task(tmp_path / "other", dropout=0.0)
    assert other.data.labels.tolist() == task.data.labels.tolist()
    labels = labels_of(task)
    both = replace(task, student=other)
    fit_rounds(fixed(labels), both, QUICK, folder=RunFolder(tmp_path / "out"))
    rows = replace(QUICK, batch_size=QUICK.batch_size * (1 + QUICK.unlabeled_ratio))
    fit(
        Supervised(),
        replace(other, data=with_labels(other.data, labels, QUICK.unlabeled_ratio)),
        rows,
        folder=tmp_path / "alone",
    )
    assert same_model(tmp_path / "out", tmp_path / "alone")


def test_from_the_second_round_on_students_read_as_students(task, tmp_path, monkeypatch):
    stores = []

    def watched(self, teacher):
        stores.append(teacher.data.store)
        return replace(labels_of(task), copies=np.arange(96) % (1 + teacher.number))

    monkeypatch.setattr(SelfTraining, "label", watched)
    other = tiny_task(tmp_path / "other")
    fit_rounds(SelfTraining(rounds=2), replace(task, student=other), QUICK)
    assert [store is task.data.store for store in stores] == [True, False] and stores[1] is other.data.store


@pytest.mark.parametrize("name", list_methods(in_rounds=True))
def test_every_loop_runs_on_texts_and_images(name, task):
    config = replace(QUICK, max_steps=2)
    method = replace(get_method(name)(), rounds=1)
    assert fit_rounds(method, task, config).scores["test"].accuracy >= 0.0
    assert fit_rounds(replace(get_method(name).for_images(), rounds=1), tiny_images(), config).steps in (2, 4)


@pytest.mark.parametrize("name", list_methods(in_rounds=True))
def test_methods_in_rounds_are_checked_and_documented(name):
    with pytest.raises(ConfigError, match="SSL202: rounds must lie in"):
        get_method(name)(rounds=0)
    assert get_method(name).__doc__ and "arXiv" in get_method(name).__doc__


def test_the_graph_is_another_teacher(task):
    module = task.build(0)
    found = SelfTraining(source="graph").label(Teacher(module, task.data, FAST, 1))
    plain = SelfTraining(threshold=0.0).label(Teacher(module, task.data, FAST, 1))
    used = found.copies > 0
    assert used.any() and found.weights[used].max() > found.weights[used].min()
    assert not np.allclose(found.p, plain.p)


# --- files ------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read(task, tmp_path):
    first, second = labels_of(task, hard=False), replace(labels_of(task), p=labels_of(task).p[::-1].copy())
    texts = task.data.texts.take(task.data.unlabeled).combine_chunks()
    write_pseudo_labels(tmp_path / "f.parquet", second, [first], task.data.classes, texts)
    assert read_pseudo_labels(tmp_path / "f.parquet", 96, task.data.classes).same(second)
    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert [row["id"] for row in rows] == list(range(96)) and rows[3]["text"] == texts[3].as_py()
    assert rows[3]["label"] == task.data.classes[second.p[3].argmax()] and rows[3]["round"] == 2
    both = second.p[3].argmax() == first.p[3].argmax()
    assert rows[3]["agreement"] == (1.0 if both else 0.5)
    assert rows[3]["margins"] == pytest.approx([abs(p[3][0] - p[3][1]) for p in (first.p, second.p)])
    with pytest.raises(RunError, match="SSL321.*of another run"):
        read_pseudo_labels(tmp_path / "f.parquet", 95, task.data.classes)
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(RunError, match="SSL321.*damaged"):
        read_pseudo_labels(tmp_path / "f.parquet", 96, task.data.classes)


@pytest.mark.parametrize("hard", [True, False])
def test_a_file_given_back_teaches_the_same(task, tmp_path, hard):
    labels = labels_of(task, hard=hard)
    texts = task.data.texts.take(task.data.unlabeled)
    write_pseudo_labels(tmp_path / "f.parquet", labels, [], task.data.classes, texts.combine_chunks())
    found = labels_from_file(tmp_path / "f.parquet", texts, task.data.classes)
    assert found.hard == hard and (found.copies == labels.copies).all()
    used = labels.copies > 0
    assert (
        found.targets()[used] == pytest.approx(labels.targets()[used]) and (found.weights == labels.weights)[used].all()
    )


def test_a_correction_counts_alone(task, tmp_path):
    labels = labels_of(task, hard=False)
    texts = task.data.texts.take(task.data.unlabeled)
    write_pseudo_labels(tmp_path / "f.parquet", labels, [], task.data.classes, texts.combine_chunks())
    table = pq.read_table(tmp_path / "f.parquet")
    names = table["label"].to_pylist()
    names[3] = "neg" if names[3] == "pos" else "pos"
    pq.write_table(table.set_column(2, "label", pa.array(names)), tmp_path / "mended.parquet")
    found = labels_from_file(tmp_path / "mended.parquet", texts, task.data.classes)
    assert found.p[3].tolist() == np.eye(2)[("neg", "pos").index(names[3])].tolist()
    assert found.p[0] == pytest.approx(labels.p[0])


def test_labels_of_a_csv_are_matched_by_text(tmp_path):
    (tmp_path / "n.csv").write_text(
        'text,label,weight\n"Good  FILM",pos,0.5\nelsewhere,neg,1\nbad film,neg,0\nwho knows,,1\n'
    )
    pool = pa.chunked_array([["bad film", "good film", "who knows", "good film"]], pa.large_string())
    found = labels_from_file(tmp_path / "n.csv", pool, ("neg", "pos"))
    assert found.copies.tolist() == [0, 1, 0, 1] and found.label.tolist() == [0, 1, -1, 1] and found.hard
    assert found.weights.tolist() == [0.0, 0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"label": ["posi"]}, "SSL134.*row 1: label 'posi' is not a class.*Did you mean 'pos'"),
        ({"label": ["pos"], "weight": [-1.0]}, "SSL145.*row 1: weight -1.0 is not a number"),
        ({"label": ["pos"], "weight": [float("nan")]}, "SSL145.*weight nan"),
        ({"label": ["pos"], "copies": ["many"]}, "SSL145.*copies 'many'"),
        ({"label": ["pos"], "probabilities": [[0.5, 0.6]]}, "SSL146.*2 numbers that sum to 1"),
        ({"label": ["pos"], "probabilities": [[1.0]]}, "SSL146"),
        ({"label": ["pos"], "probabilities": [[-1.0, 2.0]]}, "SSL146"),
        ({"other": ["pos"]}, "SSL108.*no label column"),
    ],
)  # fmt: skip
def test_files_that_make_no_sense_are_refused(tmp_path, rows, message):
    pq.write_table(pa.table({"text": ["good film"], **rows}), tmp_path / "n.parquet")
    with pytest.raises(DataError, match=message) as error:
        labels_from_file(tmp_path / "n.parquet", pa.chunked_array([["good film"]], pa.large_string()), ("neg", "pos"))
    assert "\n" not in str(error.value)


def test_texts_of_a_label_file_join_the_pool_once():
    labeled, pool = table_of(["one", "two"], ["a", "b"]), table_of(["three", "four"])
    noisy = table_of(["Three", "five", "FIVE", "one", "six"], ["a", "a", "b", "b", "a"])
    assert joined(pool, noisy, labeled).texts.to_pylist() == ["three", "four", "five", "six"]
    assert joined(None, noisy, labeled).texts.to_pylist() == ["Three", "five", "six"]
    assert joined(None, noisy, labeled).labels is None  # they are labels to learn, not hidden truth


def test_given_labels_are_the_first_round_of_a_loop_and_rows_of_a_method(task):
    given = replace(labels_of(task), weights=np.full(96, 0.5))
    with_labels = replace(task, pseudo_labels=given)
    seen = []

    class Watching(SelfTraining):
        def label(self, teacher):
            found = super().label(teacher)
            seen.append((teacher.number, found))
            return found

    fit_rounds(Watching(rounds=2, threshold=0.0), with_labels, QUICK)
    assert (seen[0][1].copies == given.copies).all() and (seen[0][1].label[::3] == given.label[::3]).all()
    assert seen[1][1].copies.sum() == 96  # from then on the students' own
    config = replace(QUICK, max_steps=3)
    one = compare(Supervised(), with_labels, config, seeds=[0], baseline=False)
    two = compare(Supervised(), task, config, seeds=[0], baseline=False)
    assert one.outcomes[0].scores["test"].nll != two.outcomes[0].scores["test"].nll


# --- saved teachers ---------------------------------------------------------------------------------------------------


def test_recorded_answers_teach_like_the_teacher_itself(task):
    """To rounding: batches of other lengths are padded in another way."""
    teacher = task.build(7)
    with torch.no_grad():
        teacher.classifier.weight.normal_(generator=torch.Generator().manual_seed(1))
    logits = predict(teacher, task.data.store, task.data.unlabeled)

    def student(given):
        torch.manual_seed(0)
        return fit(Distillation(), task, FAST, frozen_nets={"teacher": given}).module

    other = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    assert difference(student(teacher).state_dict(), student(logits).state_dict()) < 1e-4
    assert difference(student(other).state_dict(), student(logits).state_dict()) > 1e-3
    with pytest.raises(ConfigError, match="SSL234: logits of the teacher for 95 rows, the pool has 96"):
        student(logits[:95])
    with pytest.raises(ConfigError, match="SSL234: the teacher knows 1 classes"):
        student(logits[:, :1])


def test_logits_of_a_saved_teacher_are_kept_and_put_in_the_tasks_order(task, tmp_path, monkeypatch):
    fit(Supervised(), task, QUICK, folder=tmp_path / "teacher")
    texts = task.data.texts.take(task.data.unlabeled)
    found = logits_of(tmp_path / "teacher", texts, ("neg", "pos"), tmp_path / "cache")
    swapped = logits_of(tmp_path / "teacher", texts, ("pos", "neg"), tmp_path / "cache")
    assert torch.equal(found.flip(1), swapped) and found.std() > 0
    monkeypatch.setattr("nlp_ssl.inference.teacher.logits_of_texts", None)  # what is kept is not computed again
    assert torch.equal(logits_of(tmp_path / "teacher", texts, ("neg", "pos"), tmp_path / "cache"), found)
    with pytest.raises(ConfigError, match="SSL238.*knows the classes neg, pos, the task has good, pos"):
        logits_of(tmp_path / "teacher", texts, ("good", "pos"), tmp_path / "cache")
    with pytest.raises(DataError, match="SSL123"):
        logits_of(tiny_bert(tmp_path / "x").parent, texts, ("neg", "pos"), tmp_path / "cache")
