"""The one door to models that others have saved.

What a folder says of itself is checked against its weights before anything is built, and whatever the libraries raise
while they open it becomes one error. No code of the folder runs, and nothing is fetched that its files only name.
"""

import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging as hf_logging
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from nlp_ssl.errors import SSLError

# Ways to compute attention that come with the installed libraries; any other name is code on the hub.
_ATTENTION = (None, "eager", "sdpa", "flex_attention")
_LAYERS = re.compile(r"(layer|block|group|stage|depth)s?$|group_num$")
_COUNTS = re.compile(r"(num|n)_")
_MOST_LAYERS, _MOST_OF_A_KIND = 1000, 1_000_000  # where there are no weights in safetensors to tell
_SMALL = 2**24  # numbers that any model may have: buffers are not in the weights file
_NO_MODEL = {  # keys of a config.json by which the weights would not be those of the folder, or no floats
    "quantization_config": "its weights are quantized: save it with weights in float32 or bfloat16",
    "transformers_weights": "its config.json names another file of weights: remove transformers_weights there",
}


@contextmanager
def opening(refusal: Callable[[str], SSLError]) -> Iterator[None]:
    """Turns whatever a library raises while it opens a model into the error that `refusal` makes of the reason.

    Errors of this package, and interrupts, pass as they are. The libraries' own reports and warnings are silenced.
    """
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SSLError:
        raise
    except Exception as error:  # files of others make the libraries fail in as many ways as there are fields
        raise refusal(_reason(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what a failure within a library in Rust becomes
            raise
        raise refusal(_reason(error)) from error


def open_config(name: str, kind: Any = None, *, subfolder: str = "", pickles: bool = False) -> PreTrainedConfig:
    """The configuration of a saved model, once it is sure that a model of it is no larger than its weights tell.

    Args:
        name: folder or hub name.
        kind: the class of `transformers` that will build the model, e.g. `AutoModelForMaskedLM`; None where there are
            no weights of its own.
        subfolder: where in the folder.
        pickles: whether weights that are not safetensors will do.

    Raises:
        ValueError: the folder describes no model that could be opened, or one that its weights are not of.
        Exception: what the libraries raise: to be used within `opening`.
    """
    if find_file(name, "adapter_config.json", subfolder) is not None:
        raise ValueError("it is an adapter (adapter_config.json): merge it into its model and save that")
    path = cached_file(name, "config.json", subfolder=subfolder)
    if path is None:
        raise ValueError("there is no config.json")
    stored = None if kind is None else _stored(name, subfolder, pickles)
    check_described(json.loads(Path(path).read_text(encoding="utf-8")), stored)
    config: PreTrainedConfig = AutoConfig.from_pretrained(name, trust_remote_code=False, subfolder=subfolder)
    if stored is not None:
        with torch.device("meta"):  # takes neither memory nor random numbers
            skeleton = kind.from_config(config, trust_remote_code=False)
        numbers = sum(tensor.numel() for tensor in (*skeleton.parameters(), *skeleton.buffers()))
        if numbers > max(2 * stored.size, _SMALL):
            raise ValueError(
                f"config.json describes a model of {numbers:,} numbers, its weights have {stored.size:,} bytes"
            )
    return config


def check_encoder(name: str) -> None:
    """Refuses a sentence encoder one of whose modules is larger than its weights tell; `open_config` for all of them.

    Raises:
        ValueError: it is, or the list of modules is none.
        Exception: what the libraries raise: to be used within `opening`.
    """
    listed = find_file(name, "modules.json")
    modules = [{"path": ""}] if listed is None else json.loads(Path(listed).read_text(encoding="utf-8"))
    for module in modules:
        place = module["path"]
        if (options := find_file(name, "sentence_bert_config.json", place)) is not None:
            check_described(json.loads(Path(options).read_text(encoding="utf-8")), None)
        described = find_file(name, "config.json", place)
        if listed is None or (described is not None and "model_type" in Path(described).read_text(encoding="utf-8")):
            open_config(name, AutoModel, subfolder=place)
        elif described is not None:  # a layer on top: as large as the product of its widths
            widths = [value for _, value in _fields(json.loads(Path(described).read_text(encoding="utf-8")))]
            numbers = math.prod(value for value in widths if isinstance(value, int) and value > 1)
            if numbers > max(2 * _bytes(_weights(name, "model.safetensors", place)), _SMALL):
                raise ValueError(f"{place}/config.json describes a layer that its weights are not of")


def positions(model: torch.nn.Module) -> int | None:
    """Tokens that a model has learned positions for; None where it learns none."""
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    if not isinstance(table, torch.nn.Embedding):
        return None
    # RoBERTa counts positions from behind the padding id.
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def check_labels(config: PreTrainedConfig) -> None:
    """Refuses names of labels that no outputs can have; a file may list them in any order.

    Raises:
        ValueError: they do not name every output once.
    """
    names: dict[Any, Any] = dict(config.id2label or {})
    if sorted(names) != list(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError("id2label of its config.json does not give every label from 0 on a name")


def open_tokenizer(name: str) -> Any:
    """The tokenizer of a saved model.

    Raises:
        ValueError: it has no length that texts could be cut to.
        Exception: what the libraries raise: to be used within `opening`.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if not is_length(tokenizer.model_max_length):
        raise ValueError(f"model_max_length of its tokenizer is {tokenizer.model_max_length!r}, no number of tokens")
    return tokenizer


def is_length(value: Any) -> bool:
    """Whether texts can be cut to so many tokens."""
    return _is_number(value) and 1 <= value < math.inf


def entries(tokenizer: Any) -> int:
    """Rows that a table of word embeddings needs; the numbers of a vocabulary may have gaps."""
    return max([len(tokenizer), *(int(number) + 1 for number in tokenizer.get_vocab().values())])


def ask(answer: Callable[[dict[str, torch.Tensor]], Any], tokenizer: Any, pairs: bool = False) -> Any:
    """What a model answers to one text, or a pair of texts: what opens may still fail at the first of them.

    Raises:
        Exception: what the libraries raise: to be used within `opening`.
    """
    text = "A first text."
    with _settings_kept(tokenizer):
        encoded = tokenizer(text, text if pairs else None)
    names = [name for name in ("input_ids", *["token_type_ids"] * pairs) if name in encoded]
    inputs = tokenizer.pad({name: [encoded[name]] for name in names}, return_tensors="pt")
    with torch.no_grad():
        return answer(inputs)


def check_answer(logits: Any, labels: int) -> None:
    """Refuses what is no answer to one text.

    Raises:
        ValueError: it is not one number for each of the labels.
    """
    if tuple(logits.shape) != (1, labels):
        raise ValueError(f"it answers with numbers of shape {tuple(logits.shape)} where {labels} labels are named")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the library's loading report and progress bars: what matters is raised as an error."""
    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


# --- what a folder says of itself


@dataclass(frozen=True)
class _Stored:
    """What the files of weights hold.

    Attributes:
        size: bytes of the files.
        tensors: how many there are, as far as that can be told without loading them.
        widest: the largest dimension of any.
    """

    size: int
    tensors: int
    widest: int


def _stored(name: str, subfolder: str, pickles: bool) -> _Stored:
    """From the headers alone.

    Raises:
        ValueError: there are no weights.
    """
    files = _weights(name, "model.safetensors", subfolder)
    if files:
        shapes = [shape for file in files for shape in _shapes(file)]
        widest = max((size for shape in shapes for size in shape), default=0)
        return _Stored(_bytes(files), len(shapes), widest)
    files = _weights(name, "pytorch_model.bin", subfolder) if pickles else []
    if not files:
        raise ValueError("there is no model.safetensors")
    return _Stored(_bytes(files), _MOST_LAYERS, _MOST_OF_A_KIND)


def _weights(name: str, file: str, subfolder: str) -> list[str]:
    """The files of weights, several where an index tells so."""
    if (path := find_file(name, file, subfolder)) is not None:
        return [path]
    if (index := find_file(name, f"{file}.index.json", subfolder)) is None:
        return []
    parts = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    for part in parts:
        if Path(part).name != part:
            raise ValueError(f"the index of its weights names {part!r}, which is no file beside it")
    shards: list[str] = get_checkpoint_shard_files(name, index, subfolder=subfolder)[0]  # type: ignore[no-untyped-call]
    return shards


def find_file(name: str, file: str, subfolder: str = "") -> str | None:
    """The place of a file of a folder or hub model; None where there is none."""
    with suppress(OSError):
        return cached_file(name, file, subfolder=subfolder)
    return None


def _shapes(file: str) -> Iterator[list[int]]:
    with safe_open(file, framework="pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 - it is no mapping
            yield tensors.get_slice(key).get_shape()


def _bytes(files: list[str]) -> int:
    return sum(Path(file).stat().st_size for file in files)


def check_described(described: Any, stored: _Stored | None) -> None:
    """Refuses a config.json that would make the libraries fetch code, or loop and fill memory before weights are read.

    Raises:
        ValueError: it does, or is no configuration at all.
    """
    if not isinstance(described, dict):
        raise ValueError("its config.json is not an object")
    for key, why in _NO_MODEL.items():
        if described.get(key) is not None:
            raise ValueError(why)
    layers, others = _MOST_LAYERS, _MOST_OF_A_KIND
    if stored is not None:  # a few are nothing, whatever the weights
        layers, others = max(stored.tensors, 100), max(stored.widest, 1000)
    for key, value in _fields(described):
        if key.endswith(("attn_implementation", "attn_implementation_internal")) and value not in _ATTENTION:
            raise ValueError(f"its config.json asks for attention by {value!r}: remove {key} there")
        most = layers if _LAYERS.search(key) else others if _COUNTS.match(key) else None
        if most is not None and _is_number(value) and not value <= most:
            raise ValueError(f"its config.json has {key} {value:.10g}, more than its weights can be of")


def _fields(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of all fields, those within others too; what is in a list goes by the list's name."""
    if isinstance(value, dict):
        for name, within in value.items():
            yield from _fields(within, key if key.endswith("attn_implementation") else name)
    elif isinstance(value, list):
        for within in value:
            yield from _fields(within, key)
    else:
        yield key, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reason(error: BaseException) -> str:
    """Why something failed, in one short line that a terminal can show."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    shown = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    if isinstance(error, ValueError | OSError) and shown:
        return shown[:160]
    return f"{type(error).__name__}: {shown[:140]}" if shown else type(error).__name__


@contextmanager
def _settings_kept(tokenizer: Any) -> Iterator[None]:
    """A call changes how a tokenizer cuts and pads; what it was saved with comes back."""
    backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    before = None if backend is None else (backend.truncation, backend.padding)
    try:
        yield
    finally:
        if backend is not None and before is not None:
            truncation, padding = before
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
            backend.no_padding() if padding is None else backend.enable_padding(**padding)
