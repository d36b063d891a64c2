"""Back-translation by neural models of the Marian kind, through transformers or CTranslate2."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash

from nlp_ssl.config import cache_folder
from nlp_ssl.errors import ConfigError
from nlp_ssl.nets.opening import open_config, open_tokenizer, opening
from nlp_ssl.utils import atomic
from nlp_ssl.utils.atomic import CheckpointError
from nlp_ssl.utils.ranges import check
from nlp_ssl.utils.sentences import by_sentence

_LONGER = 2  # a translation may have this many times the tokens of its sentence, plus _MORE
_MORE = 10

TranslationPrecision = Literal["int8", "float32"]


@dataclass(frozen=True)
class Marian:
    """Two translation models, there and back (Edunov et al. 2018, arXiv:1808.09381), sampled sentence by sentence.

    UDA samples at temperature 0.9 without beams (Xie et al. 2020, arXiv:1904.12848); 0 takes the most likely token.
    Each seed samples anew.

    Attributes:
        there: folder or hub name of the model into the other language.
        back: the same, of the model back.
        temperature: of the sampling.
        tokens: of a batch, padding included.

    Raises:
        ConfigError: an option is out of range.
    """

    there: str = "Helsinki-NLP/opus-mt-en-fr"
    back: str = "Helsinki-NLP/opus-mt-fr-en"
    temperature: float = 0.9
    tokens: int = 4096

    def __post_init__(self) -> None:
        check(self.temperature, "temperature", 0.0, 10.0)
        check(self.tokens, "tokens", 1, 1e7)

    @contextmanager
    def open(self) -> Iterator["_Pair"]:
        """The two models, on a GPU where there is one."""
        yield _Pair(tuple(_Direction(name, self.temperature) for name in (self.there, self.back)), self.tokens)


@dataclass(frozen=True)
class CTranslate2(Marian):
    """The same models through CTranslate2, converted once and cached.

    Attributes:
        precision: of the weights and matrix products.
    """

    precision: TranslationPrecision = "int8"

    @contextmanager
    def open(self) -> Iterator["_Pair"]:
        """The two models, converted if they were not yet."""
        yield _Pair(
            tuple(_Converted(name, self.temperature, self.precision) for name in (self.there, self.back)), self.tokens
        )


class _Pair:
    """Both directions, loaded."""

    def __init__(self, directions: Sequence["_Direction | _Converted"], tokens: int) -> None:
        self._there, self._back = directions
        self._tokens = tokens

    def translate(self, texts: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
        """(number, back-translation) of every text."""

        def around(sentences: list[str]) -> list[str]:
            drawn = zlib.crc32("\0".join(sentences).encode(errors="replace"), seed)
            return self._back(self._there(sentences, drawn), drawn + 1)

        yield from by_sentence(texts, self._there.size, self._tokens, around)


class _Direction:
    """One model of transformers."""

    def __init__(self, name: str, temperature: float) -> None:
        self.tokenizer, self.model = _load(name)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        self.max_tokens = _max_tokens(self.model.config, self.tokenizer)
        self.generation: dict[str, Any] = {"num_beams": 1, "do_sample": temperature > 0}
        if temperature > 0:
            self.generation |= {"temperature": temperature, "top_k": 0}

    def size(self, sentence: str) -> int:
        return len(self.tokenizer(sentence)["input_ids"])

    @torch.no_grad()
    def __call__(self, sentences: list[str], seed: int) -> list[str]:
        cut = {"truncation": True, "max_length": self.max_tokens}
        inputs = self.tokenizer(sentences, return_tensors="pt", padding=True, **cut).to(self.device)
        limits = [_limit(int(n), self.max_tokens) for n in inputs["attention_mask"].sum(1)]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            out = self.model.generate(**inputs, max_new_tokens=max(limits) + 1, max_length=None, **self.generation)
        # Each cut by its own length, so that it does not matter which sentences share a batch.
        out = [row[1 : 1 + limit] for row, limit in zip(out, limits, strict=True)]
        translations: list[str] = self.tokenizer.batch_decode(out, skip_special_tokens=True)
        return translations


class _Converted:
    """One model of CTranslate2."""

    def __init__(self, name: str, temperature: float, precision: TranslationPrecision) -> None:
        import ctranslate2
        from transformers import AutoConfig

        self._random = ctranslate2.set_random_seed
        folder = _convert(name, precision)
        self.tokenizer = _tokenizer(str(folder))
        self.max_tokens = _max_tokens(AutoConfig.from_pretrained(folder), self.tokenizer)
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        self.model = ctranslate2.Translator(str(folder / "converted"), device=device, compute_type=precision)
        self.generation: dict[str, Any] = {"beam_size": 1}
        if temperature > 0:
            self.generation |= {"sampling_topk": 0, "sampling_temperature": temperature}

    def size(self, sentence: str) -> int:
        return len(self.tokenizer(sentence)["input_ids"])

    def __call__(self, sentences: list[str], seed: int) -> list[str]:
        encode = self.tokenizer.convert_ids_to_tokens
        rows = self.tokenizer(sentences, truncation=True, max_length=self.max_tokens)["input_ids"]
        tokens = [encode(row) for row in rows]
        self._random(seed % 2**31)
        limits = [_limit(len(row), self.max_tokens) for row in tokens]
        results = self.model.translate_batch(tokens, max_decoding_length=max(limits) + 1, **self.generation)
        words = [result.hypotheses[0][:limit] for result, limit in zip(results, limits, strict=True)]
        ids = [self.tokenizer.convert_tokens_to_ids(row) for row in words]
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def _max_tokens(config: Any, tokenizer: Any) -> int:
    """Most tokens of a sentence and of its translation."""
    return min(int(config.max_position_embeddings), int(tokenizer.model_max_length))


def _limit(tokens: int, max_tokens: int) -> int:
    """Most tokens of the translation of a sentence."""
    return min(_LONGER * tokens + _MORE, max_tokens - 2)


def _load(name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSeq2SeqLM

    def refusal(reason: str) -> ConfigError:
        return ConfigError(285, f"no translation model can be opened as {name!r} ({reason}): name a folder")

    with opening(refusal):
        config = open_config(name, AutoModelForSeq2SeqLM, pickles=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(
            name, config=config, dtype=torch.float32, trust_remote_code=False
        ).eval()
    tokenizer = _tokenizer(name)
    with opening(refusal):
        first = tokenizer(["A first text."], return_tensors="pt")
        model.generate(**first, max_new_tokens=1, max_length=None, num_beams=1, do_sample=False)
    return tokenizer, model


def _tokenizer(name: str) -> Any:
    def refusal(reason: str) -> ConfigError:
        return ConfigError(
            285, f"the tokenizer of {name!r} cannot be opened ({reason}): pip install sentencepiece, or name a folder"
        )

    with opening(refusal):
        return open_tokenizer(name)


def _convert(name: str, precision: TranslationPrecision) -> Path:
    """The folder of the converted model and its tokenizer; converts it if it is missing."""
    import ctranslate2
    from filelock import FileLock

    tokenizer, model = _load(name)
    digest = xxhash.xxh3_128(f"{ctranslate2.__version__} {precision}".encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    folder = cache_folder() / "ctranslate2" / digest.hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        try:
            atomic.verify(folder)
        except CheckpointError:
            with atomic.write_dir(folder, {"model": Path(name).name}) as temporary:
                tokenizer.save_pretrained(temporary / "source")
                model.save_pretrained(temporary / "source")
                converter = ctranslate2.converters.TransformersConverter(str(temporary / "source"))
                converter.convert(str(temporary / "converted"), quantization=precision)
                for file in (temporary / "source").iterdir():
                    if not file.name.endswith(".safetensors"):
                        file.rename(temporary / file.name)
                    else:
                        file.unlink()
                (temporary / "source").rmdir()
    return folder
