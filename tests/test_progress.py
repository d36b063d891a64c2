"""Bars are shown in terminals, in one display, with log lines above them, and nowhere else."""

import io
import logging
import re

import pytest
from rich.console import Console

from nlp_ssl.utils import progress
from nlp_ssl.utils.progress import ConsoleHandler, bar, track, verbosity


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal of 80 columns is given."""
    shown = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=shown, force_terminal=True, width=80))
    monkeypatch.setattr(progress, "_DELAY", 0)
    monkeypatch.setattr(progress, "_PAUSE", 0)
    return shown


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_bar_goes_through_all_items_and_leaves_nothing_behind(terminal):
    went = []
    for item in track(iter("abc"), "reading", total=3):
        progress._OPEN[0].refresh()
        went.append(item)
    assert went == list("abc")
    assert "reading" in plain(terminal.getvalue()) and "2/3" in plain(terminal.getvalue())
    assert terminal.getvalue().endswith("\r\x1b[2K\x1b[?25h\r"), "the line is wiped"
    assert not progress._OPEN


def test_bars_within_one_another_share_a_display(terminal):
    for _ in track("ab", "parts", total=2):
        with bar("texts") as advance:
            advance(5)
            progress._OPEN[0].refresh()
            assert len(progress._OPEN) == 1
    assert "parts" in plain(terminal.getvalue()) and "5/?" in plain(terminal.getvalue())


def test_log_lines_stand_above_the_bar(terminal):
    handler, log = ConsoleHandler(), logging.getLogger("progress test")
    log.addHandler(handler)
    log.propagate = False
    for _ in track("ab", "reading", total=2):
        log.warning("[bold] %s left", "a" * 90)
    lines = plain(terminal.getvalue()).replace("\r", "\n").split("\n")
    assert lines.count(f"[bold] {'a' * 90} left") == 2, "whole, alone in its line, and without markup"


@pytest.mark.parametrize("why", ["no terminal", "not verbose", "another process"])
def test_nothing_is_shown(terminal, monkeypatch, why):
    if why == "no terminal":
        monkeypatch.setattr(progress, "console", Console(file=terminal))
    if why == "another process":
        monkeypatch.setenv("RANK", "1")
    with verbosity(why != "not verbose"):
        assert list(track([1, 2], "reading")) == [1, 2]
    assert terminal.getvalue() == ""


def test_what_is_done_at_once_shows_no_bar(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 60)
    for _ in track("ab", "reading", total=2):
        progress._OPEN[0].refresh()
    assert "reading" not in terminal.getvalue()


def test_a_bar_is_taken_down_when_work_fails(terminal):
    with pytest.raises(ValueError), bar("reading", 2) as advance:
        advance()
        raise ValueError
    assert not progress._OPEN
    assert list(track([1], "again")) == [1]
