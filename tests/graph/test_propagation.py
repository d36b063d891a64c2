"""Labels spread over a graph, against numbers worked out by hand.

The hexagon: six points around the origin, 60 degrees apart, in the plane x + y + z = 0.

    0 ( 1, -1,  0)  labeled, class 0      3 (-1,  1,  0)  labeled, class 1
    1 ( 1,  0, -1)    2 ( 0,  1, -1)      4 (-1,  0,  1)    5 ( 0, -1,  1)

Cosines are 1/2 between neighbors on the ring, -1/2 and -1 further away: the graph is the ring 0-1-2-3-4-5 with equal
edges, scaled by the degrees to 1/2 each. On it (I - alpha / 2 * ring) z = e_0 is solved by z_d proportional to r^d +
r^(6-d) at distance d, with r = (1 - sqrt(1 - alpha^2)) / alpha. alpha = 0.99: r = 0.867609, z = 1.426524, 1.359217,
1.319370, 1.306176 for d = 0..3. A row at distance d from class 0 is at 3 - d from class 1:

    row 0: P = 1.426524 / (1.426524 + 1.306176) = 0.522020        row 1: P = 1.359217 / 2.678587 = 0.507438
"""

import math
import time

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.semi_supervised import LabelSpreading

from nlp_ssl.graph.knn import neighbors, unit_vectors
from nlp_ssl.graph.propagation import affinity, balance, balancing_weights, normalized, propagate, spread

HEXAGON = torch.tensor(
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 0.0, -1.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]]
)  # rows 0, 3, 1, 2, 4, 5 of the docstring: labeled ones first
TWO = torch.tensor([0, 1])


def near(value, by=1e-6):
    return pytest.approx(value, abs=by)


def entropy(*p):
    return -sum(v * math.log(v) for v in p if v > 0)


def clusters(n, classes, seed=0, dim=8, spread_=0.35):
    """Rows around `classes` centres, row i of class i % classes."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dim))
    truth = np.arange(n) % classes
    return torch.from_numpy(centres[truth] + spread_ * rng.standard_normal((n, dim))), torch.from_numpy(truth)


def graph_of(features, k=10, gamma=3.0):
    return normalized(affinity(*neighbors(unit_vectors(features), k), gamma))


# --- the graph


def test_affinity():
    """Edges 0-1 (similarity 1/2, both name each other), 1-2 (0.8, named by 2 only), 2-0 (-0.3: none).

    0.5^3 = 0.125, twice: 0.25. 0.8^3 = 0.512, once.
    """
    w = affinity(np.array([[0.5], [0.5], [0.8]]), np.array([[1], [0], [1]]), 3.0).toarray()
    assert w == near(np.array([[0.0, 0.25, 0.0], [0.25, 0.0, 0.512], [0.0, 0.512, 0.0]]))
    w = affinity(np.array([[0.5, -0.3], [0.5, 0.8], [0.8, -0.3]]), np.array([[1, 2], [0, 2], [1, 0]]), 3.0).toarray()
    assert w == near(np.array([[0.0, 0.25, 0.0], [0.25, 0.0, 1.024], [0.0, 1.024, 0.0]]))


def test_power_zero_counts_edges_but_none_below_zero():
    w = affinity(np.array([[0.5], [0.5], [-0.8]]), np.array([[1], [0], [1]]), 0.0).toarray()
    assert w.tolist() == [[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_normalized():
    """Row sums 0.25, 0.762, 0.512: 0.25 / sqrt(0.25 x 0.762) = 0.572786, 0.512 / sqrt(0.762 x 0.512) = 0.819705."""
    w = affinity(np.array([[0.5], [0.5], [0.8]]), np.array([[1], [0], [1]]), 3.0)
    a, b = 0.25 / math.sqrt(0.25 * 0.762), 0.512 / math.sqrt(0.762 * 0.512)
    assert (a, b) == (near(0.572786), near(0.819705))
    assert normalized(w).toarray() == near(np.array([[0.0, a, 0.0], [a, 0.0, b], [0.0, b, 0.0]]))


def test_rows_without_edges_stay_alone():
    w = normalized(affinity(np.array([[0.5], [0.5], [-0.1]]), np.array([[1], [0], [0]]), 3.0)).toarray()
    assert w == near(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.0])
def test_graph_is_symmetric_without_loops_and_of_spectral_radius_one(gamma):
    features, _ = clusters(120, 3)
    graph = graph_of(features, gamma=gamma).toarray()
    assert np.allclose(graph, graph.T, rtol=0, atol=1e-12) and not graph.diagonal().any() and (graph >= 0).all()
    assert np.abs(np.linalg.eigvalsh(graph)).max() == near(1.0, 1e-9)


# --- the solution


def test_spread_over_a_path():
    """0 - 1 - 2 with edges 1 and 8: degrees 1, 9, 8; scaled n1 = 1/3, n2 = 8 / sqrt(72) = 0.942809; n1^2 + n2^2 = 1.

    With seeds at the ends and alpha = 1/2 elimination gives z_1 = alpha n / (1 - alpha^2): 0.222222 from the left,
    0.628539 from the right; z_0 = 1 + alpha n1 z_1 = 1.037037 and alpha n1 0.628539 = 0.104757; z_2 = 1.296296.
    """
    w = affinity(np.array([[1.0], [2.0], [2.0]]), np.array([[1], [2], [1]]), 1.0)
    assert w.toarray().tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 4.0], [0.0, 4.0, 0.0]]
    w[1, 2] = w[2, 1] = 8.0
    z = spread(normalized(w), np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), 0.5)
    assert z == near(np.array([[1.037037, 0.104757], [0.222222, 0.628539], [0.104757, 1.296296]]))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.99, 0.999])
def test_conjugate_gradients_against_a_dense_solve(alpha):
    features, truth = clusters(200, 4, spread_=1.0)
    graph = graph_of(features)
    seeds = np.zeros((200, 4))
    seeds[np.arange(8), truth[:8]] = 0.5
    dense = np.linalg.solve(np.eye(200) - alpha * graph.toarray(), seeds)
    assert np.abs(spread(graph, seeds, alpha) - dense).max() < 1e-6 * dense.max()


def test_columns_are_solved_each_at_its_own_pace():
    """A seed on an island of one row is solved in one step, one between all rows takes many; one class has no seeds."""
    features, truth = clusters(200, 4, spread_=1.0)
    graph = sparse.block_diag([graph_of(features), np.zeros((1, 1))]).tocsr()
    seeds = np.zeros((201, 4))
    seeds[200, 0] = 3.0
    seeds[0, 1] = 1e-8
    seeds[:200, 2] = truth == 1
    z = spread(graph, seeds, 0.99)
    dense = np.linalg.solve(np.eye(201) - 0.99 * graph.toarray(), seeds)
    for c in range(3):
        assert np.abs(z[:, c] - dense[:, c]).max() < 1e-8 * dense[:, c].max()
        assert spread(graph, seeds[:, [c]], 0.99)[:, 0] == pytest.approx(z[:, c], rel=1e-12)  # whatever the others do
    assert z[200].tolist() == [3.0, 0.0, 0.0, 0.0] and not z[:200, 0].any() and not z[:, 3].any()


def test_what_no_seed_reaches_is_zero_to_the_last_bit():
    features, truth = clusters(120, 3, spread_=1.0)
    one = graph_of(features)
    seeds = np.zeros((240, 3))
    seeds[np.arange(6), truth[:6]] = 0.5
    z = spread(sparse.block_diag([one, one]).tocsr(), seeds, 0.99)
    assert (z[:120] > 0).all() and not z[120:].any()


def test_same_answer_as_label_spreading():
    """Another implementation, on the same dense affinities: it iterates until nothing changes."""
    features, truth = clusters(90, 3, spread_=1.2)
    w = affinity(*neighbors(unit_vectors(features), 8), 3.0).toarray()
    labels = np.full(90, -1)
    labels[:9] = truth[:9]
    oracle = LabelSpreading(kernel=lambda a, b: w, alpha=0.9, max_iter=5000, tol=1e-12).fit(features, labels)
    found = propagate(features, truth[:9], 3, k=8, alpha=0.9)
    assert found.p[9:].numpy() == near(oracle.label_distributions_[9:], 1e-6)


# --- propagate


def test_hexagon():
    """Weights: (1 - H(0.507438) / ln 2) / (1 - H(0.522020) / ln 2) = 0.000159645 / 0.00139952 = 0.114071."""
    found = propagate(HEXAGON, TWO, 2)
    r = (1 - math.sqrt(1 - 0.99**2)) / 0.99
    z = [r**d + r ** (6 - d) for d in range(4)]
    labeled, pool = z[0] / (z[0] + z[3]), z[1] / (z[1] + z[2])
    assert (labeled, pool) == (near(0.522020), near(0.507438))
    close, far = [pool, 1 - pool], [1 - pool, pool]
    assert found.p.tolist() == [
        [1.0, 0.0], [0.0, 1.0], *([near(a), near(b)] for a, b in (close, far, far, close))
    ]  # fmt: skip
    w = (1 - entropy(pool, 1 - pool) / math.log(2)) / (1 - entropy(labeled, 1 - labeled) / math.log(2))
    assert w == near(0.114071)
    assert found.weights.tolist() == [1.0, 1.0, *[near(w)] * 4]
    assert found.class_weights.tolist() == [1.0, 1.0]


def test_features_may_be_moved_and_scaled():
    moved = propagate(7.0 * HEXAGON + torch.tensor([3.0, -5.0, 40.0]), TWO, 2)
    assert moved.p.numpy() == near(propagate(HEXAGON, TWO, 2).p.numpy(), 1e-5)


def test_class_weights():
    """Six rows, five of class 0 and one of class 1: 6 / 2 / 5 = 0.6 and 3 / 1 = 3. An empty class counts as one row.

    For shares of 0.75 and 0.25: 4.5 / 5 = 0.9 and 1.5 / 1 = 1.5.
    """
    even = torch.tensor([0.5, 0.5])
    assert balancing_weights(torch.tensor([5.0, 1.0]), even).tolist() == [near(0.6), near(3.0)]
    assert balancing_weights(torch.tensor([6.0, 0.0]), even).tolist() == [near(0.5), near(3.0)]
    assert balancing_weights(torch.tensor([5.0, 1.0]), torch.tensor([0.75, 0.25])).tolist() == [near(0.9), near(1.5)]


def test_prior():
    """All four rows lead by d = ln(1.359217 / 1.319370) = 0.029755, so that labels are softened to odds e^2.

    Shares of 0.7 and 0.3: (s(2 + b) + s(b - 2)) / 2 = 0.7 with s(v) = 1 / (1 + e^-v). For t = e^b and a = e^2 that is
    0.6 a t^2 - 0.4 (a^2 + 1) t - 1.4 a = 0: t = 5.444806, b = 1.694662. The odds' factor is e^(b d / 2), so that P is
    s(d + b d / 2) = 0.513738 near class 0 and s(b d / 2 - d) = 0.498864 near class 1. Labels stay 3 to 3, and weigh
    0.7 x 6 / 3 = 1.4 and 0.3 x 6 / 3 = 0.6.
    """
    found = propagate(HEXAGON, TWO, 2, prior=(0.7, 0.3))
    r = (1 - math.sqrt(1 - 0.99**2)) / 0.99
    d, a = math.log((r + r**5) / (r**2 + r**4)), math.exp(2)
    half = 0.4 * (a**2 + 1)
    b = math.log((half + math.sqrt(half**2 + 4 * 0.6 * 1.4 * a**2)) / (1.2 * a))
    close, far = (1 / (1 + math.exp(-v)) for v in (d + b * d / 2, b * d / 2 - d))
    assert (d, b, close, far) == (near(0.029755), near(1.694662), near(0.513738), near(0.498864))
    assert found.p[2:, 0].tolist() == [near(v) for v in (close, far, far, close)]
    assert found.p.sum(1).numpy() == near(1.0) and found.p[:2].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert found.class_weights.tolist() == [near(1.4), near(0.6)]
    even = propagate(HEXAGON, TWO, 2, prior=(0.5, 0.5))
    assert even.p.numpy() == near(propagate(HEXAGON, TWO, 2).p.numpy())


def test_balance_moves_the_least_sure_rows():
    """Leads of class 0 from -0.01 to 0.29 in 30 steps: half of each class moves the limit to the middle."""
    lead = torch.arange(-1, 30, dtype=torch.float64) / 100
    z = torch.stack([lead.exp(), torch.ones_like(lead)], 1)
    balanced = z * balance(z, torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert balanced.argmax(1).tolist() == [1] * 15 + [0] * 16 or balanced.argmax(1).tolist() == [1] * 16 + [0] * 15
    one_third = z * balance(z, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    assert 0.25 < (one_third.argmax(1) == 0).double().mean() < 0.4


def test_balance_leaves_out_what_is_not_there():
    """A class without labels arrives nowhere and gets nothing; rows that nothing reaches have no say."""
    z = torch.tensor([[0.5, 0.4, 0.0], [0.4, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    factors = balance(z, torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64))
    assert factors.tolist() == [near(1.0)] * 3
    skewed = torch.tensor([0.4, 0.2, 0.4], dtype=torch.float64)
    assert balance(z, skewed).tolist() == balance(z[:2], skewed).tolist() != [1.0, 1.0, 1.0]
    for nothing in (z[2:], z[:0], z * torch.tensor([1.0, 0.0, 0.0])):
        assert balance(nothing, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)).tolist() == [1.0, 1.0, 1.0]


def test_prior_of_a_rare_class():
    """Classes of 80 and 20 rows that overlap, one label each: unbalanced, most rows go to the rare one."""
    rng = np.random.default_rng(1)
    truth = np.array([0, 1, *[0] * 80, *[1] * 20])
    features = torch.from_numpy(np.eye(6)[truth] * 1.5 + rng.standard_normal((102, 6)) * 0.5)
    right = {}
    for prior in (None, (0.8, 0.2)):
        found = propagate(features, TWO, 2, k=20, prior=prior)
        right[prior] = (found.p[2:].argmax(1).numpy() == truth[2:]).mean()
    assert right[None] < 0.5 and right[0.8, 0.2] > 0.95


def test_class_weights_count_labeled_rows_and_pool():
    """Two clusters: 2 + 8 rows of class 0, 2 + 3 of class 1: (15 / 2) / 10 = 0.75 and 7.5 / 5 = 1.5."""
    rng = np.random.default_rng(0)
    truth = [0, 0, 1, 1, *[0] * 8, *[1] * 3]
    centres = np.array([[5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]])
    features = torch.from_numpy(centres[truth] + 0.1 * rng.standard_normal((15, 3)))
    assert propagate(features, torch.tensor(truth[:4]), 2).class_weights.tolist() == [near(0.75), near(1.5)]


def test_every_class_sends_out_the_same_amount():
    """Three labels of class 0 against one of class 1, all of them neighbors of the one row between.

    The seeds are 1/3 and 1. With as many neighbors as there are rows the graph is the full one: solved densely.
    """
    angles = torch.tensor([-50.0, -40.0, -30.0, 40.0, 0.0, 180.0]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], 1)
    found = propagate(features, torch.tensor([0, 0, 0, 1]), 2)
    graph = graph_of(features, k=5).toarray()
    seeds = np.array([[1 / 3, 0], [1 / 3, 0], [1 / 3, 0], [0, 1], [0, 0], [0, 0]])
    z = np.linalg.solve(np.eye(6) - 0.99 * graph, seeds)
    assert z[4].min() > 0.1  # both arrive
    assert found.p[4].numpy() == near(z[4] / z[4].sum(), 1e-6)


def test_without_flow_only_labeled_rows_have_labels():
    found = propagate(HEXAGON, TWO, 2, alpha=0.0)
    assert found.p[2:].any().item() is False and found.weights.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert found.p[:2].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert found.class_weights.tolist() == [1.0, 1.0]


def test_what_no_label_reaches_has_no_weight():
    """Two squares at right angles to one another, labels in the first one only; rows without a label count nowhere."""
    square = torch.tensor([[4.0, 0.1, 0.0], [4.0, -0.1, 0.0], [-4.0, 0.1, 0.0], [-4.0, -0.1, 0.0]])
    other = torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, -4.0]])
    found = propagate(torch.cat([square[[0, 2]], square[[1, 3]], other]), TWO, 2)
    assert found.p[2:].argmax(1)[:2].tolist() == [0, 1]
    assert (found.weights[:4] > 0).all() and found.weights[4:].tolist() == [0.0, 0.0]
    assert not found.p[4:].any() and bool(torch.isfinite(found.p).all())
    assert found.class_weights.tolist() == [1.0, 1.0]  # 2 rows each; the two rows apart are of neither class


def test_no_row_is_sure():
    """Labels half and half: every P is even, all weights are 0, and 0 / 0 is none."""
    found = propagate(HEXAGON, torch.full((2, 2), 0.5), 2)
    assert found.p.numpy() == near(0.5) and found.weights[2:].numpy() == near(0.0, 1e-6)
    assert found.weights[:2].tolist() == [1.0, 1.0] and bool(torch.isfinite(found.class_weights).all())


def test_one_hot_labels_are_classes():
    soft, hard = propagate(HEXAGON, torch.eye(2), 2), propagate(HEXAGON, TWO, 2)
    assert torch.equal(soft.p, hard.p) and torch.equal(soft.weights, hard.weights)


def test_order_of_rows_does_not_matter():
    features, truth = clusters(80, 3, spread_=1.0)
    order = torch.cat([torch.arange(6).flip(0), 6 + torch.randperm(74, generator=torch.Generator().manual_seed(0))])
    plain, mixed = propagate(features, truth[:6], 3), propagate(features[order], truth[order][:6], 3)
    assert mixed.p.numpy() == near(plain.p[order].numpy(), 1e-6)
    assert mixed.weights.numpy() == near(plain.weights[order].numpy(), 1e-6)
    assert mixed.class_weights.tolist() == plain.class_weights.tolist()


def test_the_same_rows_give_the_same_bits():
    features, truth = clusters(300, 3, spread_=1.0)
    one, two = (propagate(features, truth[:6], 3) for _ in range(2))
    assert torch.equal(one.p, two.p) and torch.equal(one.weights, two.weights)


@pytest.mark.parametrize("rows", [1, 2])
def test_hardly_any_rows(rows):
    features = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    found = propagate(features, torch.tensor([1]), 2)
    assert found.p[0].tolist() == [0.0, 1.0] and found.weights.tolist() == [1.0, 0.0][:rows]


def test_labels_follow_clusters():
    """Two labels a class name all 600 rows; the surer half is right more often."""
    features, truth = clusters(600, 3, spread_=0.9)
    found = propagate(features, truth[:6], 3)
    right = found.p[6:].argmax(1) == truth[6:]
    sure = found.weights[6:] >= found.weights[6:].median()
    assert right.double().mean() > 0.85
    assert right[sure].double().mean() > right[~sure].double().mean()


@pytest.mark.slow
def test_twenty_thousand_rows():
    """Seconds, and memory for N k edges: a full table would hold 400 million."""
    features, truth = clusters(20_000, 10, dim=64, spread_=0.8)
    began = time.process_time()
    found = propagate(features, truth[:100], 10)
    assert time.process_time() - began < 60
    assert (found.p.argmax(1) == truth).double().mean() > 0.95
    assert affinity(*neighbors(unit_vectors(features[:2000]), 50), 3.0).nnz <= 2 * 2000 * 50


def test_balance_of_a_class_far_behind_in_every_row_is_finite():
    generator = torch.Generator().manual_seed(0)
    z = 1 + 0.005 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    z[:, 2] = 1e-6
    factors = balance(z, torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64))
    assert bool(torch.isfinite(factors).all()) and factors[2] == 1.0 > factors[:2].max()


def test_islands_keep_their_labels_when_balanced():
    """No factors give the classes of three islands other shares than they have: nothing is lost in the attempt."""
    features, truth = clusters(90, 3, spread_=0.1)
    found = propagate(features, truth[:9], 3, k=7, alpha=0.8, prior=[0.5, 0.3, 0.2])
    assert found.p.argmax(1).tolist() == truth.tolist() and (found.p.sum(1) > 0).all()
