"""Names of methods, and dataclasses made from options."""

from dataclasses import dataclass

import pytest

from nlp_ssl import registry
from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method
from nlp_ssl.methods import UDA, FixMatch
from nlp_ssl.registry import get_method, list_methods, register
from nlp_ssl.utils.ranges import check, make


@pytest.fixture
def empty(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", {})


def test_the_names_are_sorted_and_lead_to_their_classes():
    names = list_methods(in_rounds=False)
    assert names == sorted(names) and {"fixmatch", "supervised", "uda"} <= set(names)
    assert all(get_method(name).name == name for name in names)


def test_register_names_the_class_and_takes_a_name_once(empty):
    @register("mine")
    @dataclass(frozen=True)
    class Mine(Method):
        pass

    assert list_methods(in_rounds=False) == ["mine"] and get_method("mine") is Mine and Mine.name == "mine"
    with pytest.raises(ValueError, match="'mine' is already registered by .*Mine"):
        register("mine")(Method)
    assert get_method("mine") is Mine and Method.name == ""


@pytest.mark.parametrize(
    ("typed", "meant"), [("fixmach", "fixmatch"), ("FixMatch", "fixmatch"), ("meanteacher", "mean_teacher")]
)
def test_an_unknown_name_suggests_the_nearest(typed, meant):
    with pytest.raises(ConfigError, match=f"SSL201: unknown method '{typed}'. Did you mean '{meant}'?") as error:
        get_method(typed)
    assert error.value.exit_code == 2


def test_a_name_like_none_lists_all():
    with pytest.raises(ConfigError) as error:
        get_method("qqqq")
    assert all(name in str(error.value) for name in list_methods(in_rounds=False)) and "\n" not in str(error.value)


def test_make():
    assert make(UDA, {"tsa": "log", "weight": 2.0}) == UDA(tsa="log", weight=2.0)
    assert make(TrainConfig, {"batch_size": 16}).batch_size == 16
    with pytest.raises(ConfigError, match="SSL203: unknown option 'treshold' of FixMatch. Did you mean 'threshold'?"):
        make(FixMatch, {"treshold": 0.9})
    with pytest.raises(ConfigError, match="SSL204: tsa cannot be 'expo'. Did you mean 'exp'?"):
        make(UDA, {"tsa": "expo"})
    with pytest.raises(ConfigError, match="SSL202: threshold must lie in .0, 1., got 1.5"):
        make(FixMatch, {"threshold": 1.5})


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_check_refuses(value):
    with pytest.raises(ConfigError, match="share must lie in"):
        check(value, "share", 0.0, 1.0)


def test_check_lets_the_ends_pass():
    check(0.0, "share", 0.0, 1.0)
    check(1.0, "share", 0.0, 1.0)
