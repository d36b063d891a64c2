"""The verdict says what the numbers say: above, equal, below, or not beyond chance."""

import pytest

from nlp_ssl.experiments.compare import Comparison, score_table
from nlp_ssl.inference.metrics import Scores
from nlp_ssl.training.outcome import Outcome


def comparison(**sides):
    made = {
        name: tuple(Outcome({"test": Scores(a, a, 0.0, 0.0)}, 1, 1.0) for a in accuracies)
        for name, accuracies in sides.items()
    }
    return Comparison("uda", tuple(range(len(made["uda"]))), made)


@pytest.mark.parametrize(
    ("sides", "words", "never"),
    [
        ({"start": [0.7], "uda": [0.7]}, "uda equals the best label-only model (start)", "above"),
        ({"start": [0.7], "uda": [0.8]}, "one seed cannot tell a gain from luck", "interval"),
        (
            {"start": [0.7], "supervised": [0.75], "uda": [0.72]},
            "BELOW the best label-only model (supervised)",
            "above",
        ),
        ({"start": [0.7, 0.7, 0.7], "uda": [0.80, 0.81, 0.79]}, "above", "not beyond"),
        ({"start": [0.7, 0.7, 0.7], "uda": [0.90, 0.60, 0.70]}, "not beyond what seeds alone explain", "BELOW"),
        ({"uda": [0.9]}, "No verdict", "above"),
    ],
)
def test_verdict(sides, words, never):
    found = comparison(**sides).verdict()
    assert words in found and never not in found


def test_difference_and_spread_by_hand():
    """Gains over the better side (supervised, mean 72): 80-71 = 9 and 78-73 = 5, mean 7, sd sqrt((4 + 4) / 1) = 2.8."""
    rows = score_table(comparison(start=[0.70, 0.70], supervised=[0.71, 0.73], uda=[0.80, 0.78]))
    assert rows[-1] == ("difference", "+9.0", "+5.0", "+7.0", "2.8")


def test_interval_by_hand():
    """Gains 9 and 5: 7 +- 12.7062 x 2.8284 / sqrt(2) = 25.4, with Student's t of one degree of freedom; 1.96 for it
    would give 3.9. Gains 9, 5 and 7: 7 +- 4.3027 x 2 / sqrt(3) = 4.97.
    """
    two = comparison(supervised=[0.71, 0.73], uda=[0.80, 0.78])
    assert two.gain() == (pytest.approx(7.0), pytest.approx(25.4124, abs=1e-3))
    assert "above the best label-only model (supervised) by 7.0 points (95 % interval -18.4 to +32.4)" in two.verdict()
    three = comparison(supervised=[0.71, 0.73, 0.70], uda=[0.80, 0.78, 0.77])
    assert three.gain() == (pytest.approx(7.0), pytest.approx(4.9683, abs=1e-3))
    assert "(95 % interval +2.0 to +12.0)" in three.verdict() and "not beyond" not in three.verdict()
