"""The real Apertium, where it is installed with English and Spanish."""

import shutil
import subprocess

import pytest
from engines import needs_apertium

from nlp_ssl.data.bundled import load_bundled
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.paraphrase.apertium import Apertium, ApertiumPipe


@needs_apertium
def test_texts_neither_mix_nor_move():
    """A word may pass over the end of a line, and a pronoun take the gender of the text before: here no text sees
    another, so that the order and the company of texts do not matter.
    """
    texts = ["I want to", "eat the apples", "his mother too", "", "too timid to say", "a [b] ^c$ <d> @ / \\ {e} \0 f",
             "one\nof two lines", "x", "found myself more appreciative"]  # fmt: skip
    with Apertium().open() as pipe:
        together = dict(pipe.translate(texts, 0))
        again = dict(pipe.translate(texts[::-1], 0))
        alone = [dict(pipe.translate([text], 0))[0] for text in texts]
    assert list(together) == list(range(len(texts)))
    assert [together[i] for i in range(len(texts))] == alone
    assert [again[i] for i in range(len(texts))] == alone[::-1]
    assert alone[3] == "" and alone[7] == "x"
    assert "[b]" in alone[5] and "<d>" in alone[5] and "\\" in alone[5] and "\n" not in alone[6]
    assert alone[1] == "Eat the apples"


@needs_apertium
def test_many_texts_do_not_block_the_pipe():
    texts = [f"this is the good film number {i} of the year" for i in range(800)]
    with Apertium().open() as pipe:
        found = dict(pipe.translate(texts, 0))
    assert len(found) == 800 and all(str(i) in found[i] for i in range(800))


@needs_apertium
def test_a_text_that_comes_late_is_translated_as_early():
    """After some 140 texts a tagger that never starts again takes nouns for verbs here and there."""
    texts = load_bundled("reviews")[0].texts.to_pylist()[:330]
    with Apertium().open() as pipe:
        found = dict(pipe.translate(texts, 0))
    with Apertium().open() as pipe:
        early = dict(pipe.translate([*texts[300:], "word " * 2000, *texts[300:]], 0))
    assert [found[i] for i in range(300, 330)] == [early[i] for i in range(30)] == [early[i] for i in range(31, 61)]


@needs_apertium
@pytest.mark.timeout(60)
def test_work_that_is_given_up_does_not_wait_for_the_pipe():
    with Apertium().open() as pipe:
        found = pipe.translate(["this is a long text about nothing " * 400] * 200, 0)
        next(found)
        found.close()
        with pytest.raises(RunError, match="open another one"):
            next(pipe.translate(["a text"], 0))


@needs_apertium
def test_unknown_mode():
    with pytest.raises(ConfigError, match="SSL281: apertium has no mode 'eng-xyz'"), Apertium("eng-xyz").open():
        pass


def test_not_installed(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="SSL280: apertium is not installed: apt install"), Apertium().open():
        pass


def test_a_program_that_ends_is_noticed():
    with subprocess.Popen(["true"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.wait()
        pipe = ApertiumPipe(process.stdin, process.stdout)
        with pytest.raises(RunError, match="SSL330: apertium ended"):
            list(pipe.translate(["a text"], 0))
        process.stdin = None  # broken: closing it would raise again
