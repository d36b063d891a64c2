"""What rewriting costs: Apertium against its bare pipe, the cache, translation models of opus-mt's size, and kills.

    python scripts/bench/rewriting.py apertium --texts 10000
    python scripts/bench/rewriting.py models --sentences 128
    python scripts/bench/rewriting.py kill --texts 3000 --kills 10

The texts are the bundled film reviews. The models have random weights: the rates are those of models of this size,
their output is noise that ends at its limit of tokens. With --out FILE the numbers are added to a JSON file.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from nlp_ssl.data.bundled import load_bundled
from nlp_ssl.paraphrase.apertium import Apertium
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.marian import CTranslate2, Marian
from nlp_ssl.paraphrase.rewrite import Rewriting
from nlp_ssl.utils.atomic import write_text
from nlp_ssl.utils.sentences import batches, split


def main() -> None:
    """Runs one measurement and prints its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["apertium", "models", "kill"])
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--sentences", type=int, default=128)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "apertium":
            found = apertium(Path(folder), given.texts, given.rounds)
        elif given.what == "models":
            found = models(Path(folder), given.sentences, given.rounds)
        else:
            found = kill(Path(folder), given.texts, given.kills)
    print(json.dumps(found, indent=1))
    if given.out:
        known = json.loads(given.out.read_text()) if given.out.exists() else {}
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        about = {"commit": commit, "python": platform.python_version(), "torch": torch.__version__}
        write_text(given.out, json.dumps(known | {given.what: found | about}, indent=1))


def reviews(count: int) -> list[str]:
    """Texts of the training rows, repeated with a number in front where they do not suffice."""
    texts = load_bundled("reviews")[0].texts.to_pylist()
    return [texts[i % len(texts)] if i < len(texts) else f"{i} {texts[i % len(texts)]}" for i in range(count)]


def apertium(folder: Path, count: int, rounds: int) -> dict[str, object]:
    """Seconds of the bare pipe, of one and of two workers into an empty cache, and of the cache alone."""
    texts = reviews(count)
    plain = folder / "texts"
    plain.write_text("".join(f"{text}\n" for text in texts))
    pipe = f"apertium -u eng-spa < {plain} | apertium -u spa-eng > {folder / 'out'}"
    seconds: dict[str, list[float]] = {"pipe": [], "one worker": [], "two workers": [], "from the cache": []}
    for i in range(rounds):
        seconds["pipe"].append(timed(lambda: subprocess.run(pipe, shell=True, check=True)))
        for workers, name in ((1, "one worker"), (2, "two workers")):
            place = folder / f"{name} {i}"
            seconds[name].append(timed(lambda place=place, workers=workers: through(texts, place, workers)))
        seconds["from the cache"].append(timed(lambda place=place: through(texts, place, 1)))
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "texts": count,
        "texts per second": {name: round(count / value, 1) for name, value in best.items()},
        "of the pipe's rate": {
            name: [round(a / b, 3) for a, b in zip(seconds["pipe"], seconds[name], strict=True)]
            for name in ("one worker", "two workers")
        },
        "seconds": {name: [round(v, 2) for v in values] for name, values in seconds.items()},
    }


def through(texts: list[str], place: Path, workers: int) -> None:
    """All texts through the cache."""
    with Cache(place) as cache, Rewriting([Apertium()], cache, workers=workers) as rewriting:
        assert sum(1 for _ in rewriting(texts)) == len(texts)


def timed(call) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def models(folder: Path, count: int, rounds: int) -> dict[str, object]:
    """Tokens per second of the two engines, and the share of padding."""
    sentences = [s for text in reviews(4000) for s in split(text)]
    model = random_opus_mt(folder, sentences)
    tokenizer = MarianTokenizer.from_pretrained(model)
    engines = {
        "marian float32": Marian(model, model, 0.0),
        "ctranslate2 float32": CTranslate2(model, model, 0.0, precision="float32"),
        "ctranslate2 int8": CTranslate2(model, model, 0.0, precision="int8"),
    }
    rates: dict[str, list[float]] = {}
    for name, engine in engines.items():
        with engine.open() as pair:
            list(pair.translate(sentences[:2], 0))
            for _ in range(rounds):
                start = time.perf_counter()
                found = dict(pair.translate(sentences[:count], 0))
                seconds = time.perf_counter() - start
                tokens = sum(len(tokenizer(text)["input_ids"]) for text in found.values())
                rates.setdefault(name, []).append(round(tokens / seconds, 1))
    sizes = [len(ids) for ids in tokenizer(sentences)["input_ids"]]
    budget = Marian().tokens
    rows = max(budget // max(sizes), 1)
    in_order = [list(range(i, min(i + rows, len(sizes)))) for i in range(0, len(sizes), rows)]
    return {
        "sentences": count,
        "tokens out per second": rates,
        "times marian": {n: round(statistics.median(v) / statistics.median(rates["marian float32"]), 2)
                         for n, v in rates.items()},
        "padding, in the order of the texts": round(padding(sizes, in_order), 3),
        "padding, sorted by length": round(padding(sizes, list(batches(sizes, budget))), 3),
        "batches": [len(in_order), len(list(batches(sizes, budget)))],
    }  # fmt: skip


def padding(sizes: list[int], groups: list[list[int]]) -> float:
    """Share of a batch's cells that hold padding, over all batches."""
    cells = sum(len(group) * max(sizes[i] for i in group) for group in groups)
    return 1 - sum(sizes) / cells


def random_opus_mt(folder: Path, lines: list[str]) -> str:
    """A model with the shapes of opus-mt-en-fr and random weights; its words are learned from the lines."""
    (folder / "lines").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines"), model_prefix=str(folder / "source"), vocab_size=8000, minloglevel=2
    )
    spm = str(folder / "source.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=spm)
    size = 59514  # words of opus-mt-en-fr; those beyond the learned ones are names only
    words = ["</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces)))]
    words += [f"<{i}>" for i in range(size - 1 - len(words))] + ["<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    tokenizer = MarianTokenizer(spm, spm, str(folder / "vocab.json"), source_lang="en", target_lang="fr")
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=size, d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, max_position_embeddings=512,
        pad_token_id=size - 1, eos_token_id=0, decoder_start_token_id=size - 1, forced_eos_token_id=0,
        bos_token_id=None, share_encoder_decoder_embeddings=True, scale_embedding=True, activation_function="swish",
    )  # fmt: skip
    made = MarianMTModel(config)
    made.generation_config.update(bad_words_ids=[[size - 1]])
    made.save_pretrained(folder / "model")
    return str(folder / "model")


def kill(folder: Path, count: int, kills: int) -> dict[str, object]:
    """The command killed again and again: its file against that of an unbroken run, and how much was done twice."""
    (folder / "u.txt").write_text("".join(f"{text}\n" for text in dict.fromkeys(reviews(count))))
    base = [sys.executable, "-m", "nlp_ssl.cli", "augment", str(folder / "u.txt"), "--fewest-words", "1"]
    argv = [*base, "--cache-dir", str(folder / "cache"), "--out", str(folder / "views.parquet")]
    subprocess.run([*base, "--cache-dir", str(folder / "c2"), "--out", str(folder / "whole.parquet")], check=True)
    whole = entries(folder / "c2")
    done = []
    for i in range(kills):
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and entries(folder / "cache") < (i + 1) * whole / (kills + 1):
            time.sleep(0.002)
        assert process.poll() is None, "it ended before the kill"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "views.parquet").exists()
        done.append(entries(folder / "cache"))
    subprocess.run(argv, check=True)
    one, other = pq.read_table(folder / "views.parquet"), pq.read_table(folder / "whole.parquet")
    return {
        "texts": one.num_rows,
        "done at each kill": done,
        "entries in the end": entries(folder / "cache"),
        "entries of the unbroken run": whole,
        "same texts": one["text"].equals(other["text"]),
        "views that differ": sum(
            a != b for a, b in zip(one["view"].to_pylist(), other["view"].to_pylist(), strict=True)
        ),
    }


def entries(folder: Path) -> int:
    """Whole entries of a cache."""
    return sum(path.stat().st_size // 32 for path in folder.glob("*.index"))


if __name__ == "__main__":
    main()
