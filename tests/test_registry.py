"""Names of methods, and dataclasses made from options."""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Literal

import pytest

from nlp_ssl.config import TrainConfig
from nlp_ssl.errors import ConfigError
from nlp_ssl.method import Method, register
from nlp_ssl.methods import UDA, FixMatch
from nlp_ssl.registry import describe, get_method, list_methods
from nlp_ssl.utils.documentation import FieldInfo, documented
from nlp_ssl.utils.ranges import Weight, check, from_options


@pytest.fixture
def empty(monkeypatch):
    monkeypatch.setattr("nlp_ssl.method.METHODS", {})


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
    assert from_options(UDA, {"tsa": "log", "weight": 2.0}) == UDA(tsa="log", weight=2.0)
    assert from_options(TrainConfig, {"batch_size": 16}).batch_size == 16
    with pytest.raises(ConfigError, match="SSL203: unknown option 'treshold' of FixMatch. Did you mean 'threshold'?"):
        from_options(FixMatch, {"treshold": 0.9})
    with pytest.raises(ConfigError, match="SSL204: tsa cannot be 'expo'. Did you mean 'exp'?"):
        from_options(UDA, {"tsa": "expo"})
    with pytest.raises(ConfigError, match="SSL202: threshold must lie in .0, 1., got 1.5"):
        from_options(FixMatch, {"threshold": 1.5})


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_check_refuses(value):
    with pytest.raises(ConfigError, match="share must lie in"):
        check(value, "share", 0.0, 1.0)


def test_check_lets_the_ends_pass():
    check(0.0, "share", 0.0, 1.0)
    check(1.0, "share", 0.0, 1.0)


def test_describe(empty):
    @register("mine")
    @dataclass(frozen=True)
    class Mine(Method):
        """Mine (Doe 2020, arXiv:2001.00001): rows
        agree.

        Loss: mean_B CE(y, x) +
        weight * 1.

        The mean is over rows.

        Differs from the paper: in nothing.

        Example:
            from mine import Mine
            method = Mine()
        """

        images = {"weight": 2.0}
        weight: Annotated[Weight, "of the second term"] = 1.0
        way: Annotated[Literal["up", "down", "on"], "where it goes"] = "up"
        rows: int = 3

    info = describe("mine")
    assert (info.name, info.class_name, info.title, info.summary) == ("mine", "Mine", "Mine", "rows agree.")
    assert info.reference == "Doe 2020, arXiv:2001.00001" and info.differences == "in nothing."
    assert info.loss == "mean_B CE(y, x) + weight * 1.\nThe mean is over rows."
    assert info.example == "from mine import Mine\nmethod = Mine()"
    assert info.fields == (
        FieldInfo("weight", "float", 1.0, 2.0, (0.0, 1e6), (), "of the second term"),
        FieldInfo("way", "str", "up", "up", None, ("up", "down", "on"), "where it goes"),
        FieldInfo("rows", "int", 3, 3, None, (), ""),
    )
    listed = Mine.__doc__[Mine.__doc__.index("Args:") : Mine.__doc__.index("\n\nDiffers")]
    assert listed.splitlines() == [
        "Args:",
        "    weight (float of at least 0, default 1.0, for images 2.0): of the second term",
        "    way (up, down or on, default up): where it goes",
        "    rows (int, default 3):",
    ]
    assert describe("mine") == info  # the list changes nothing of what is read


def test_a_method_without_docstring_is_described_as_far_as_it_goes(empty):
    @register("bare")
    @dataclass(frozen=True)
    class Bare(Method):
        pass

    info = describe("bare")
    assert (info.title, info.reference, info.loss, info.fields, info.example) == ("Bare", "", "", (), "")
    with pytest.raises(ConfigError, match="SSL201: unknown method 'bar'. Did you mean 'bare'?"):
        describe("bar")


def test_arguments_that_are_written_out_stay():
    @documented
    @dataclass(frozen=True)
    class Own:
        """Own.

        Args:
            a: by hand.
        """

        a: Annotated[int, "not by hand"] = 1

    assert "not by hand" not in Own.__doc__ and "a: by hand." in Own.__doc__


def test_annotations_kept_as_strings_count_as_well(empty, monkeypatch):
    """A module of a method's author may begin with `from __future__ import annotations`."""
    module = ModuleType("authors")
    monkeypatch.setitem(sys.modules, "authors", module)
    source = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated
from nlp_ssl.method import Method, Share, register

@register("mine")
@dataclass(frozen=True)
class Mine(Method):
    share: Annotated[Share, "of the rows"] = 0.5
"""
    exec(compile(source, "authors.py", "exec", dont_inherit=True), module.__dict__)
    assert describe("mine").fields == (FieldInfo("share", "float", 0.5, 0.5, (0.0, 1.0), (), "of the rows"),)
    with pytest.raises(ConfigError, match="SSL202: share must lie in .0, 1., got 1.5"):
        get_method("mine")(share=1.5)
    with pytest.raises(ConfigError, match="SSL204: share must be a number"):
        from_options(get_method("mine"), {"share": "0.5"})
