"""Texts tokenized once, kept as word ids in memory-mapped Arrow, and turned into padded batches by array gathers.

A word is the run of token ids that share one word index of the tokenizer's encoding, whatever its algorithm (WordPiece,
BPE, Unigram). Word-level augmentation is then arithmetic on word ids: no string is touched after the store is built.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import xxhash
from filelock import FileLock
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nlp_ssl.augment.base import Augment, Vocabulary
from nlp_ssl.augment.policy import Rewritten
from nlp_ssl.augment.tfidf import (
    document_frequency,
    inverse_document_frequency,
    replace_weights,
    summed_scores,
    tfidf_scores,
)
from nlp_ssl.data.pairs import PairFrame, Pairs
from nlp_ssl.errors import ConfigError, DataError, RunError
from nlp_ssl.utils.counter_rng import mix_bits, uniform
from nlp_ssl.utils.paths import check_utf8
from nlp_ssl.utils.progress import bar
from nlp_ssl.utils.ragged import Ragged, offsets_of, spans

FORMAT = 2
_REWRITING, _SECOND = np.uint64(5), np.uint64(6)  # random streams of their own, beside those of word noise
_FILES = ("words.arrow", "vocabulary.arrow")
# Work is cut into pieces by size, not by row count, so that long texts need no more memory than short ones.
_TEXT_BYTES = 1 << 20
_ROWS = 1 << 14  # rows tokenized at once, however short
_WORDS = 1 << 20
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Frame:
    """What the model expects around and beside a row's own tokens.

    Attributes:
        prefix: special token ids before the text.
        suffix: special token ids after it.
        pad_id: token id that fills a row up to the longest of its batch.
        token_types: whether the model takes `token_type_ids`.
    """

    prefix: list[int]
    suffix: list[int]
    pad_id: int
    token_types: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> "Frame":
        """Read off a tokenizer by encoding one letter and looking at what was added on either side.

        Raises:
            ConfigError: the tokenizer has no pad token.
        """
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                262, "tokenizer: it has no pad token: set one, for example tokenizer.pad_token = tokenizer.eos_token"
            )
        probe = _plain(tokenizer).encode("a")
        added = np.asarray(probe.special_tokens_mask, dtype=bool)
        own = np.flatnonzero(~added)
        prefix, suffix = probe.ids[: own[0]], probe.ids[own[-1] + 1 :]
        return cls(prefix, suffix, tokenizer.pad_token_id, "token_type_ids" in tokenizer.model_input_names)

    @property
    def size(self) -> int:
        """Number of special tokens of a row."""
        return len(self.prefix) + len(self.suffix)

    def pad(self, tokens: Ragged) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        """One right-padded block, int64 tensors [R, L], and the length of each of its rows [R]."""
        lengths, head = tokens.lengths + self.size, len(self.prefix)
        block = np.full((len(tokens), lengths.max(initial=0)), self.pad_id, dtype=np.int64)
        block[:, :head] = self.prefix
        block[tokens.rows(), tokens.columns() + head] = tokens.values
        for place, token in enumerate(self.suffix, start=head):
            block[np.arange(len(tokens)), tokens.lengths + place] = token
        ids = torch.from_numpy(block)
        mask = torch.from_numpy((np.arange(block.shape[1]) < lengths[:, None]).astype(np.int64))
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.token_types:
            inputs["token_type_ids"] = torch.zeros_like(ids)
        return inputs, lengths


class TokenStore:
    """Tokenized texts on disk; see `build`, which makes or reuses one, and `views`, which makes batches.

    Attributes:
        vocabulary: the words, their pieces and their statistics over the fitted rows.
        lengths: tokens of each row, special ones included, before truncation, int32 [N].
        max_length: tokens of a row at most, special ones included; each row is cut after augmentation. Of pairs
            both texts are augmented, each as a text of its own, and the longer one is cut first.
        frame: special tokens and padding.
        rewritings: positions of the stored rewritings of each row; rows beyond its end have none.
        pairs: where rows are pairs of texts, which text is the second one of each.
    """

    def __init__(
        self, words: Ragged, weights: np.ndarray, lengths: np.ndarray, vocabulary: Vocabulary, frame: Frame
    ) -> None:
        self.max_length = 128
        self._words = words
        self._weights = weights
        self.lengths = lengths
        self.vocabulary = vocabulary
        self.frame = frame
        self.rewritings = Ragged(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))
        self.pairs: Pairs | None = None

    def __len__(self) -> int:
        return len(self._words)

    def words(self, index: np.ndarray) -> tuple[Ragged, np.ndarray]:
        """Word ids (int32) of the rows at `index` [n], and the TF-IDF replace weight of each word, float16 [T]."""
        positions, offsets = spans(self._words.offsets[index], self._words.lengths_at(index))
        return Ragged(self._words.values[positions], offsets), self._weights[positions]

    def views(
        self, requests: Sequence[tuple[np.ndarray, Augment | None, np.ndarray]]
    ) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        """One padded block for all requests, rows in request order.

        Args:
            requests: (row positions [n], augmentation or None, one key per row, uint64 [n]), at least one.

        Returns:
            `input_ids` and `attention_mask` (and `token_type_ids` where the model takes them: zero except in pairs),
            int64 [R, L] with L the longest row, and the number of tokens of each row, int64 [R].

        Raises:
            ConfigError: `max_length` leaves no room for a token beside the special ones.
        """
        size = self.frame.size if self.pairs is None else self.pairs.frame.size
        room = self.max_length - size
        if room < (1 if self.pairs is None else 2):
            raise ConfigError(
                263, f"max_length: {self.max_length} leaves no room beside {size} special tokens: raise it"
            )
        tokens = self._tokens([self._changed(*request) for request in requests], room)
        if self.pairs is None:
            return self.frame.pad(tokens)
        second = [
            self._changed(self.pairs.second[rows], change, mix_bits(keys ^ _SECOND)) for rows, change, keys in requests
        ]
        longer = np.concatenate([self.pairs.shorter[rows] for rows, _, _ in requests])
        return self.pairs.frame.pad(tokens, self._tokens(second, room), longer, room)

    def _tokens(self, parts: Sequence[Ragged], room: int) -> Ragged:
        """The first `room` tokens of each text, given as its words."""
        # Every word has a token, so cutting the words first loses nothing and keeps long texts cheap.
        words = Ragged.concat(parts).truncate(room)
        pieces = self.vocabulary.pieces.take(words.values)
        return Ragged(pieces.values, pieces.offsets[words.offsets]).truncate(room)

    def _changed(self, rows: np.ndarray, augment: Augment | None, keys: np.ndarray) -> Ragged:
        if isinstance(augment, Rewritten) and len(self.rewritings):
            return self._rewritten(rows, augment, keys)
        words, weights = self.words(rows)
        return words if augment is None else augment(words, weights, keys, self.vocabulary)

    def _rewritten(self, rows: np.ndarray, augment: Rewritten, keys: np.ndarray) -> Ragged:
        inside = np.minimum(rows, len(self.rewritings) - 1)
        count = np.where(rows == inside, self.rewritings.lengths_at(inside), 0)
        key = mix_bits(keys ^ _REWRITING)
        takes = (count > 0) & (uniform(key, np.ones(len(rows))) < augment.p)
        replaced, kept = np.flatnonzero(takes), np.flatnonzero(~takes)
        drawn = (uniform(key[replaced], np.zeros(len(replaced))) * count[replaced]).astype(np.int64)
        source = self.rewritings.values[self.rewritings.offsets[rows[replaced]] + drawn]
        parts = [
            self._changed(source, augment.then, keys[replaced]),
            self._changed(rows[kept], augment.otherwise, keys[kept]),
        ]
        return Ragged.concat(parts).take(np.argsort(np.concatenate([replaced, kept])))

    def join(self, second: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> None:
        """Makes the first texts rows of pairs: the text at `second` [N] is the second one of row 0, 1, ...

        Raises:
            ConfigError: the tokenizer puts nothing between two texts.
        """
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        frame = PairFrame.of(
            _plain(tokenizer), self.frame.pad_id, token_types=self.frame.token_types, single=self.frame.size
        )
        own = self.lengths - np.int32(self.frame.size)
        self.lengths = own[: len(second)] + own[second] + np.int32(frame.size)
        self.pairs = Pairs(second, own[: len(second)] > own[second], frame)

    @classmethod
    def build(
        cls,
        texts: pa.ChunkedArray,
        tokenizer: PreTrainedTokenizerBase,
        *,
        cache_dir: Path,
        fit_rows: np.ndarray | None = None,
        max_words: int | None = None,
        max_length: int = 128,
    ) -> "TokenStore":
        """The store of these texts, built under `cache_dir` or found there intact; a damaged one is built again.

        Args:
            texts: strings, N rows.
            tokenizer: any tokenizer with a Rust backend and a pad token.
            cache_dir: parent of the store's directory, whose name is a hash of all that the store depends on.
            fit_rows: positions of the rows that count in the word statistics; None means all.
            max_words: words kept of each text; None means all.
            max_length: tokens of a row at most.

        Raises:
            DataError: `texts` are not strings, a row is null, or `fit_rows` points past the last row.
            ConfigError: the tokenizer has no Rust backend or no pad token, or the directory's name is not UTF-8.
            RunError: the directory cannot be written.
        """
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ConfigError(264, f"tokenizer: {type(tokenizer).__name__} has no Rust backend: use a fast tokenizer")
        check_utf8(cache_dir)
        frame, chunks, fitted = Frame.of(tokenizer), _text_chunks(texts), _fitted(fit_rows, len(texts))
        encoder = _plain(tokenizer)
        options = {"format": FORMAT, "frame": asdict(frame), "max_words": max_words, "encoder": encoder.to_str()}
        folder = cache_dir / _content_hash(options, chunks, fitted)
        partial = folder.with_suffix(".partial")
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                try:
                    return cls.open(folder, max_length)
                except DataError:  # absent or damaged: made below
                    shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                write_store(partial, encoder, frame, chunks, fitted, max_words)
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
                return cls.open(folder, max_length)
        except OSError as error:
            raise RunError(
                361, f"{cache_dir}: the token store cannot be written ({error.strerror}): free space or move cache_dir"
            ) from error

    @classmethod
    def open(cls, folder: Path, max_length: int = 128) -> "TokenStore":
        """A store that `build` wrote, memory-mapped, after its files were checked against the manifest.

        Raises:
            DataError: the directory is absent, incomplete or damaged.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            if manifest["format"] != FORMAT or manifest["files"] != {name: _seal(folder / name) for name in _FILES}:
                raise ValueError("manifest and files differ")
            frame = Frame(**manifest["frame"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(161, f"{folder}: no intact token store ({error}): build it again") from error
        words, vocabulary = (_read(folder / name) for name in _FILES)
        entries, pieces = words["words"], vocabulary["pieces"]
        store = cls(
            words=Ragged(_numpy(entries.values.field("word")), _numpy(entries.offsets)),
            weights=_numpy(entries.values.field("weight")),
            lengths=_numpy(words["tokens"]),
            vocabulary=Vocabulary(
                pieces=Ragged(_numpy(pieces.values), _numpy(pieces.offsets)),
                df=_numpy(vocabulary["df"]),
                tfidf=_numpy(vocabulary["tfidf"]),
            ),
            frame=frame,
        )
        store.max_length = max_length
        return store


class _WordIndex:
    """Word ids by the 64-bit hash of their pieces. With a million words, two share a hash once in 40 million stores."""

    def __init__(self) -> None:
        self._hashes = np.zeros(0, dtype=np.uint64)  # sorted
        self._ids = np.zeros(0, dtype=np.int32)  # in the order of the hashes
        self._pieces = [Ragged(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))]

    def ids(self, words: Ragged) -> np.ndarray:
        """Id of each word, given as its pieces, int32 [n]; words not seen before get the next ids."""
        if not len(words):
            return np.zeros(0, dtype=np.int32)
        terms = mix_bits(mix_bits(words.columns().astype(np.uint64)) + words.values.astype(np.uint64))
        hashes, first, inverse = np.unique(
            np.add.reduceat(terms, words.offsets[:-1]), return_index=True, return_inverse=True
        )
        place = np.searchsorted(self._hashes, hashes)
        new = np.ones(len(hashes), dtype=bool)
        inside = place < len(self._hashes)
        new[inside] = self._hashes[place[inside]] != hashes[inside]
        ids = np.arange(len(self._ids), len(self._ids) + new.sum(), dtype=np.int32)
        self._pieces.append(words.take(first[new]))
        self._hashes = np.insert(self._hashes, place[new], hashes[new])
        self._ids = np.insert(self._ids, place[new], ids)
        word_ids: np.ndarray = self._ids[np.searchsorted(self._hashes, hashes)][inverse]
        return word_ids

    def pieces(self) -> Ragged:
        """Pieces of every word, in the order of the ids."""
        return Ragged.concat(self._pieces)


def _plain(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy of the backend without the truncation and padding that earlier calls may have left in it."""
    encoder = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _text_chunks(texts: pa.ChunkedArray) -> list[pa.LargeStringArray]:
    """The non-empty chunks as large strings, checked for nulls."""
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise DataError(162, f"texts: the column holds {texts.type}, not strings: cast it")
    if texts.null_count:
        row = int(np.argmax(texts.is_null().to_numpy()))
        raise DataError(163, f"texts, row {row}: the text is null: drop the row or give it an empty text")
    return [chunk.cast(pa.large_string()) for chunk in texts.chunks if len(chunk)]


def _fitted(fit_rows: np.ndarray | None, rows: int) -> np.ndarray:
    """Whether each row counts in the word statistics, bool [N]."""
    if fit_rows is None:
        return np.ones(rows, dtype=bool)
    if len(fit_rows) and not (0 <= fit_rows.min() and fit_rows.max() < rows):
        raise DataError(164, f"fit_rows: positions {fit_rows.min()} to {fit_rows.max()} for {rows} texts")
    fitted = np.zeros(rows, dtype=bool)
    fitted[fit_rows] = True
    return fitted


def _text_offsets(chunk: pa.LargeStringArray) -> np.ndarray:
    """Where each text starts in the chunk's bytes, int64 [n + 1]."""
    return np.frombuffer(chunk.buffers()[1], dtype=np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]


def _content_hash(options: dict[str, object], chunks: list[pa.LargeStringArray], fitted: np.ndarray) -> str:
    """Hex name of all that a store depends on; the same texts in other chunks have the same name."""
    content, lengths = xxhash.xxh3_128(), xxhash.xxh3_128()
    for chunk in chunks:
        offsets, data = _text_offsets(chunk), chunk.buffers()[2]
        lengths.update(np.diff(offsets).tobytes())
        if data is not None:
            content.update(memoryview(data)[offsets[0] : offsets[-1]])
    lengths.update(np.packbits(fitted).tobytes())
    parts = json.dumps(options, sort_keys=True) + content.hexdigest() + lengths.hexdigest()
    return xxhash.xxh3_128_hexdigest(parts.encode())


def _parts(offsets: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of at most `_ROWS` rows that span at most `size`, or a single row that is larger."""
    start, rows = 0, len(offsets) - 1
    while start < rows:
        stop = int(np.searchsorted(offsets, offsets[start] + size, side="right")) - 1
        stop = min(max(stop, start + 1), start + _ROWS, rows)
        yield start, stop
        start = stop


def write_store(
    folder: Path,
    encoder: Tokenizer,
    frame: Frame,
    chunks: list[pa.LargeStringArray],
    fitted: np.ndarray,
    max_words: int | None,
) -> None:
    """Tokenizes in one pass, computes the word statistics in a second, and seals the files with a manifest."""
    index = _WordIndex()
    words, lengths = _tokenize(chunks, encoder, index, folder / "words.raw", max_words)
    pieces = index.pieces()
    df, tfidf, weights = _statistics(words, fitted, len(pieces), folder / "weights.raw")
    entries = pa.StructArray.from_arrays([_arrow(words.values), _arrow(weights)], ["word", "weight"])
    rows = pa.LargeListArray.from_arrays(_arrow(words.offsets), entries)
    _write(folder / "words.arrow", {"words": rows, "tokens": _arrow(lengths + np.int32(frame.size))})
    spelled = pa.LargeListArray.from_arrays(_arrow(pieces.offsets), _arrow(pieces.values))
    _write(folder / "vocabulary.arrow", {"pieces": spelled, "df": _arrow(df), "tfidf": _arrow(tfidf)})
    for raw in folder.glob("*.raw"):
        raw.unlink()
    # The manifest comes last: a directory without one was never finished.
    manifest = {"format": FORMAT, "frame": asdict(frame), "files": {name: _seal(folder / name) for name in _FILES}}
    with (folder / "manifest.json").open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _tokenize(
    chunks: list[pa.LargeStringArray], encoder: Tokenizer, index: _WordIndex, path: Path, max_words: int | None
) -> tuple[Ragged, np.ndarray]:
    """Word ids of all rows, mapped from `path`, and the number of tokens of each row, int32 [N]."""
    counts, tokens = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int32)]
    with path.open("wb") as file, bar("tokenizing", sum(map(len, chunks))) as advance:
        for chunk in chunks:
            for start, stop in _parts(_text_offsets(chunk), _TEXT_BYTES):
                advance(stop - start)
                spelled = _encode(chunk.slice(start, stop - start).to_pylist(), encoder, max_words)
                file.write(index.ids(spelled.words).tobytes())
                counts.append(spelled.lengths)
                tokens.append(np.diff(spelled.words.offsets[spelled.offsets]).astype(np.int32))
    return Ragged.from_lengths(_mapped(path, np.int32), np.concatenate(counts)), np.concatenate(tokens)


class _Spelled(NamedTuple):
    """Texts cut into words and words into pieces; `offsets` [n + 1] are those of the texts among the words."""

    words: Ragged
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Words of each text, int64 [n]."""
        return np.diff(self.offsets)


def _encode(texts: list[str], encoder: Tokenizer, max_words: int | None) -> _Spelled:
    # The faster encode_batch_fast leaves out the word numbers this is all about.
    encodings = encoder.encode_batch(texts, add_special_tokens=False)
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int32)
    offsets = offsets_of(np.fromiter((len(encoding) for encoding in encodings), dtype=np.int64))
    starts = np.ones(len(ids), dtype=bool)
    # Without a pre-tokenizer the whole text counts as one word: there each token is taken for a word instead.
    if encoder.pre_tokenizer is not None:
        word = np.fromiter(chain.from_iterable(encoding.word_ids for encoding in encodings), dtype=np.int64)
        starts[1:] = word[1:] != word[:-1]
        starts[offsets[:-1][np.diff(offsets) > 0]] = True
    edges = np.append(np.flatnonzero(starts), len(ids))
    pieces, texts_at = Ragged(ids, edges), np.searchsorted(edges, offsets)
    if max_words is None or not (np.diff(texts_at) > max_words).any():
        return _Spelled(pieces, texts_at)
    kept = Ragged(np.arange(len(pieces)), texts_at).truncate(max_words)
    return _Spelled(pieces.take(kept.values), kept.offsets)


def _statistics(words: Ragged, fitted: np.ndarray, size: int, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Df [V] and summed tf-idf [V] over the fitted rows, and the replace weight of every word, mapped from `path`."""
    df, tfidf = np.zeros(size, dtype=np.int64), np.zeros(size)
    for start, stop in _parts(words.offsets, _WORDS):
        part = words.slice(start, stop)
        df += document_frequency(part.take(np.flatnonzero(fitted[start:stop])), size)
    idf = inverse_document_frequency(df, int(fitted.sum()))
    with path.open("wb") as file:
        for start, stop in _parts(words.offsets, _WORDS):
            part = words.slice(start, stop)
            tfidf += summed_scores(part.take(np.flatnonzero(fitted[start:stop])), idf)
            file.write(replace_weights(Ragged(tfidf_scores(part, idf), part.offsets)).tobytes())
    return df, tfidf, _mapped(path, np.float16)


def _mapped(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """A flat binary file as a read-only array; an empty file cannot be mapped."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _arrow(values: np.ndarray) -> pa.Array:
    return pa.array(np.asarray(values))


def _numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The values of a column without a copy: stores are written as one chunk."""
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    values: np.ndarray = array.to_numpy(zero_copy_only=True)
    return values


def _write(path: Path, columns: dict[str, pa.Array]) -> None:
    """An Arrow file with the columns in one chunk, so that they can be mapped as arrays."""
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # a large pool has more words than 32 bits count
    with path.open("wb") as file:
        with pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=max(len(table), 1))
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, pa.Array]:
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    empty = {name: pa.array([], table.schema.field(name).type) for name in table.column_names}
    return {name: table[name].chunk(0) if table[name].num_chunks else empty[name] for name in table.column_names}


def _seal(path: Path) -> dict[str, object]:
    """Size and checksum of a file, read in blocks."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return {"size": path.stat().st_size, "xxh3_128": digest.hexdigest()}
