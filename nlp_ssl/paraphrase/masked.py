"""Words masked and replaced by a masked language model; the rest of the text stays."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.opening import ask, entries, open_config, open_tokenizer, opening
from nlp_ssl.utils.counter_rng import row_keys, uniform
from nlp_ssl.utils.ranges import check
from nlp_ssl.utils.sentences import batches

_ROOM = 512  # tokens of a window where neither model nor tokenizer says
_CELLS = 1 << 22  # random numbers at once: bounds the memory for any vocabulary
# The constants of `counter_rng`, as torch has them: signed.
_GOLDEN, _FIRST, _SECOND = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

_Place = tuple[int, int]  # window and column of a token


@dataclass(frozen=True)
class MaskedLM:
    """Contextual augmentation (Kobayashi 2018, arXiv:1805.06201) by any `AutoModelForMaskedLM`.

    A share of the words is masked at once, a model like BERT reads the rest, and a new token is drawn at every masked
    position. Unlike Kobayashi's language model and the conditional BERT of Wu et al. (2019, arXiv:1812.06705) the model
    is neither trained further nor conditioned on the label, which unlabeled texts do not have: a word may be replaced
    by its opposite, so a small share is safer. Words are the tokenizer's; those without a letter or digit stay unless
    there are no others. All pieces of a word are masked and filled in one pass, each by itself: words of several pieces
    may come out odd. A draw may be the old word again.

    The view depends on the text, the seed and these options alone, and what is not masked stays character by character.
    Texts longer than the model's context are read in windows.

    Attributes:
        model: folder or hub name.
        share: of the words of a text that is masked; at least one word, unless it is 0.
        temperature: of the sampling; 0 takes the most likely token.
        tokens: of a batch, padding included; does not change the views.

    Raises:
        ConfigError: an option is out of range.
    """

    model: str
    share: float = 0.15
    temperature: float = 1.0
    tokens: int = field(default=4096, repr=False)

    def __post_init__(self) -> None:
        check(self.share, "share", 0.0, 1.0)
        check(self.temperature, "temperature", 0.0, 10.0)
        check(self.tokens, "tokens", 1, 1e7)

    @contextmanager
    def open(self) -> Iterator["_Filler"]:
        """The model, on a GPU where there is one."""
        yield _Filler(self)


@dataclass
class _Word:
    """The position of a word: its characters and its tokens."""

    start: int
    end: int
    places: list[_Place]


class _Mask(NamedTuple):
    """A masked token: its column in the window, whether it is the first of a word, and the random key of its draw."""

    column: int
    first: bool
    key: int


class _Filler:
    """The model, loaded."""

    def __init__(self, options: MaskedLM) -> None:
        self.options = options
        self.tokenizer, self.model = _load(options.model)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.max_tokens = _max_tokens(self.model, self.tokenizer)
        self.uncased = _lowercases(self.tokenizer)
        self.never, self.never_first = (mask.to(self.device) for mask in _excluded(self.model, self.tokenizer))

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, text with new words) of every text, as soon as its last window is filled."""
        if not texts:
            return
        encoded = self.tokenizer(
            [text.encode(errors="replace").decode() for text in texts],  # the length stays: so do the offsets
            truncation=True,
            max_length=self.max_tokens,
            return_overflowing_tokens=True,  # the windows after the first
            split_special_tokens=True,  # "[MASK]" in a text is a word like others
        )
        windows, owners = encoded.encodings, encoded["overflow_to_sample_mapping"]
        of_text: list[list[int]] = [[] for _ in texts]
        for window, number in enumerate(owners):
            of_text[number].append(window)
        words: list[list[_Word]] = []
        masks: dict[int, list[_Mask]] = {}  # by window
        for text, mine in zip(texts, of_text, strict=True):
            key = xxhash.xxh3_64_intdigest(text.encode(errors="surrogatepass"), seed % 2**64)
            words.append(_chosen(_words(text, [(w, windows[w]) for w in mine]), self.options.share, key))
            places = [(place, not at) for word in words[-1] for at, place in enumerate(word.places)]
            keys = row_keys(key, 1, np.arange(len(places))).view(np.int64).tolist()
            for ((window, column), first), drawn in zip(places, keys, strict=True):
                masks.setdefault(window, []).append(_Mask(column, first, drawn))
        left = [sum(window in masks for window in mine) for mine in of_text]
        yield from ((number, texts[number]) for number, count in enumerate(left) if not count)
        new: dict[_Place, int] = {}
        order = list(masks)
        for batch in batches([len(windows[w].ids) for w in order], self.options.tokens):
            chosen = [order[at] for at in batch]
            filled = self._fill([windows[w].ids for w in chosen], [masks[w] for w in chosen])
            new.update(zip(((w, mask.column) for w in chosen for mask in masks[w]), filled, strict=True))
            for number in (owners[window] for window in chosen):
                left[number] -= 1
                if not left[number]:
                    yield number, self._rebuilt(texts[number], words[number], new)

    @torch.no_grad()
    def _fill(self, rows: list[list[int]], masks: list[list[_Mask]]) -> list[int]:
        """One token for each mask of each row, in this order."""
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, self.tokenizer.pad_token_id or 0)
        seen = nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True)
        row = torch.tensor([number for number, mine in enumerate(masks) for _ in mine])
        column, first, keys = map(torch.tensor, zip(*(mask for mine in masks for mask in mine), strict=True))
        ids[row, column] = self.tokenizer.mask_token_id
        output = self.model(input_ids=ids.to(self.device), attention_mask=seen.to(self.device)).logits
        logits, first, keys = output[row, column], first.to(self.device), keys.to(self.device)
        step = max(_CELLS // logits.shape[1], 1)
        parts = [slice(start, start + step) for start in range(0, len(row), step)]
        return [token for part in parts for token in self.draw(logits[part], first[part], keys[part]).tolist()]

    def draw(self, logits: Tensor, first: Tensor, keys: Tensor) -> Tensor:
        """Tokens [n] by the logits [n, V]."""
        score = logits.double()
        if self.options.temperature > 0:
            # The Gumbel maximum instead of the inverse of the cumulative probabilities: rounding, which differs from
            # batch to batch, then decides only where the best two are all but equal, not at every border.
            score = score / self.options.temperature + gumbel(keys, logits.shape[1])
        return score.masked_fill(torch.where(first[:, None], self.never_first, self.never), -torch.inf).argmax(1)

    def _rebuilt(self, text: str, words: list[_Word], new: dict[_Place, int]) -> str:
        """The text with its masked words replaced."""
        parts, done = [], 0
        for word in words:
            old = text[word.start : word.end]
            decoded = self.tokenizer.decode([new[place] for place in word.places], clean_up_tokenization_spaces=False)
            fresh = decoded.strip()
            if not fresh or "\ufffd" in fresh:  # nothing, or half a character of a byte-level vocabulary
                fresh = old
            elif self.uncased and old[0].isupper():
                fresh = fresh[0].upper() + fresh[1:]
            if fresh is not old and decoded[0].isspace() and word.start and not text[word.start - 1].isspace():
                fresh = f" {fresh}"  # a new word begins with a space, the old one did not: "don" + "'t"
            parts += [text[done : word.start], fresh]
            done = word.end
        return "".join([*parts, text[done:]])


def _words(text: str, windows: Sequence[tuple[int, Any]]) -> list[_Word]:
    """The words of a text in order: those with a letter or digit, or all if none has one."""
    by_index: dict[int, _Word] = {}
    for number, window in windows:
        for column, (index, (start, end)) in enumerate(zip(window.word_ids, window.offsets, strict=True)):
            if index is not None:  # not [CLS] and the like
                word = by_index.setdefault(index, _Word(start, end, []))
                word.start, word.end = min(word.start, start), max(word.end, end)
                word.places.append((number, column))
    words: list[_Word] = []
    for word in sorted(by_index.values(), key=lambda word: word.start):
        piece = text[word.start : word.end]
        if not piece.strip():
            continue
        word.start, word.end = word.end - len(piece.lstrip()), word.start + len(piece.rstrip())
        if words and word.start < words[-1].end:  # one character that the tokenizer takes for several words
            words[-1].end = max(word.end, words[-1].end)
            words[-1].places += word.places
        else:
            words.append(word)
    return [word for word in words if any(c.isalnum() for c in text[word.start : word.end])] or words


def _chosen(words: list[_Word], share: float, key: int) -> list[_Word]:
    """The share of the words with the smallest random numbers, in the order of the text."""
    if not words or not share:
        return []
    count = max(round(share * len(words)), 1)
    numbers = uniform(row_keys(key, 0, np.arange(len(words))), np.zeros(len(words)))
    return [words[at] for at in sorted(np.argsort(numbers, kind="stable")[:count].tolist())]


def gumbel(keys: Tensor, size: int) -> Tensor:
    """Gumbel noise, float64 [n, size], from int64 keys [n]: `counter_rng.uniform` on any device, open at both ends."""
    state = keys[:, None] + torch.arange(size, device=keys.device) * _GOLDEN
    numbers = _shifted_right(_mix(_mix(state) + _GOLDEN), 12).double().add_(0.5).mul_(2.0**-52)
    return numbers.log_().neg_().log_().neg_()


def _mix(state: Tensor) -> Tensor:
    """`counter_rng.mix` of int64, which wraps like uint64."""
    state = (state ^ _shifted_right(state, 30)) * _FIRST
    state = (state ^ _shifted_right(state, 27)) * _SECOND
    return state ^ _shifted_right(state, 31)


def _shifted_right(state: Tensor, by: int) -> Tensor:
    """A logical shift: zeros come in from the left."""
    return (state >> by) & ((1 << 64 - by) - 1)


def _excluded(model: Any, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Which tokens [V] are never drawn, and which never as the first of a word: those that go on with one ("##s")."""
    size = int(model.get_output_embeddings().weight.shape[0])
    never = torch.arange(size) >= len(tokenizer)  # rows that pad the vocabulary
    never[tokenizer.all_special_ids] = True
    prefix = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("continuing_subword_prefix")
    first = never.clone()
    if prefix:
        first[[i for token, i in tokenizer.get_vocab().items() if token.startswith(prefix)]] = True
    return never, first


def _lowercases(tokenizer: Any) -> bool:
    """Whether the tokenizer lowercases texts."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("A") == "a"


def _max_tokens(model: Any, tokenizer: Any) -> int:
    """Tokens of a window, special ones included."""
    positions = int(model.config.to_dict().get("max_position_embeddings", _ROOM))
    table = next((m for name, m in model.named_modules() if name.endswith("position_embeddings")), None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        positions -= table.padding_idx + 1  # RoBERTa's positions start after the padding id
    return min(positions, int(tokenizer.model_max_length))


def _load(name: str) -> tuple[Any, Any]:
    """Tokenizer and model; only safetensors weights are read, and no remote code runs."""
    from transformers import AutoModelForMaskedLM

    def refusal(reason: str) -> ConfigError:
        return ConfigError(
            290,
            f"no masked language model can be opened as {name!r} ({reason}): name a folder with its safetensors "
            "weights, config and tokenizer",
        )

    with opening(refusal):
        tokenizer = open_tokenizer(name)
        model, loading = AutoModelForMaskedLM.from_pretrained(
            name,
            config=open_config(name, AutoModelForMaskedLM),
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if loading["missing_keys"]:
        raise ConfigError(
            290,
            f"the model {name!r} lacks weights, {min(loading['missing_keys'])} for one: name one that was trained as a "
            "masked language model, such as bert-base-uncased, not a classifier or an encoder alone",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    for wrong, what in (
        (not tokenizer.is_fast, "is not a fast one, which knows the position of each token in the text"),
        (tokenizer.mask_token_id is None, "has no mask token"),
        (entries(tokenizer) > rows, f"has {entries(tokenizer)} entries and its model only {rows}"),
    ):
        if wrong:
            raise ConfigError(291, f"the tokenizer of {name!r} {what}: name another model, such as bert-base-uncased")
    with opening(refusal):
        model.eval()
        ask(lambda inputs: model(**inputs), tokenizer)
    return tokenizer, model
