"""A trained text classifier as an ONNX graph, and the answers of such a graph."""

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import ConfigError, DataError, RunError
from nlp_ssl.inference.predict import by_length, finite, logits_of_texts, longest_text, probabilities
from nlp_ssl.nets.opening import ask, check_answer, check_labels, open_config, open_tokenizer, opening, quiet
from nlp_ssl.nets.text import TextNet, class_names, kind_of, load_trained, of_pairs
from nlp_ssl.types import Kind
from nlp_ssl.utils import atomic

Quantize = Literal["no", "int8"]
# Largest difference of a probability that is taken for rounding.
TOLERANCES: dict[Quantize, float] = {"no": 1e-3, "int8": 0.1}
_GRAPH = "model.onnx"
_WHOLE = ("config.json", "export.json", _GRAPH, f"{_GRAPH}.data", "tokenizer.json")
_PROVIDERS = ["CPUExecutionProvider"]
_TOKENS = 512  # of one batch: more is slower, measured (scripts/bench/predict.py)
_SAMPLE = 64  # texts made up where none are given


@dataclass(frozen=True)
class Parity:
    """An exported graph beside the model that it was made from, on the same texts.

    Attributes:
        texts: how many there were.
        difference: the largest difference of a probability of any class.
        same_labels: share of the texts that get the same label.
        torch_per_second: texts per second of the model, one after another on this machine.
        onnx_per_second: the same of the graph.
    """

    texts: int
    difference: float
    same_labels: float
    torch_per_second: float
    onnx_per_second: float


class OnnxClassifier:
    """An exported graph in ONNX Runtime, with its tokenizer and class names."""

    def __init__(self, folder: Path) -> None:
        """Opens a folder that `export` wrote.

        Raises:
            ConfigError: ONNX Runtime is not installed.
            DataError: the folder holds no whole export, or a damaged one.
        """
        for name in _WHOLE:
            if not (folder / name).is_file():
                raise DataError(123, f"{folder}: no whole exported model there ({name} is missing)")
        try:
            import onnxruntime
        except ImportError as error:
            raise _not_installed() from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # by itself it takes every core of the machine
        with opening(lambda why: DataError(123, f"{folder}: the exported model is damaged ({why}): export it again")):
            config = open_config(str(folder))
            check_labels(config)
            self.tokenizer = open_tokenizer(str(folder))
            self._session = onnxruntime.InferenceSession(
                folder / _GRAPH, options, onnxruntime.get_available_providers()
            )
            self.classes = tuple(class_names(config))
            self.kind = kind_of(config)
            self.of_pairs = of_pairs(config)
            check_answer(ask(self._forward, self.tokenizer, self.of_pairs), len(self.classes))

    def longest_text(self, asked: int | None = None) -> int:
        """Tokens per text: what was asked for, or as many as the graph was made for.

        Raises:
            ConfigError: more are asked for than the graph was made for.
        """
        longest = int(self.tokenizer.model_max_length)
        if asked is not None and asked > longest:
            raise ConfigError(229, f"max_length is {asked}, the model was exported for {longest} tokens: lower it")
        return longest if asked is None else asked

    def logits(self, texts: Sequence[str], max_length: int, pairs: Sequence[str] | None = None) -> Tensor:
        """Logits [n, C] of texts or pairs of texts, float32, computed in batches of like length.

        Raises:
            RunError: the graph's answers are not numbers.
        """
        return finite(by_length(self.tokenizer, texts, max_length, self._forward, _TOKENS, pairs))

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        (logits,) = self._session.run(["logits"], {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(logits)


def is_exported(folder: Path) -> bool:
    """Whether a folder holds a graph rather than a model."""
    return (folder / "export.json").is_file()


def export(
    folder: Path,
    out: Path,
    *,
    quantize: Quantize = "no",
    tolerance: float | None = None,
    texts: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
) -> Parity:
    """Writes the trained model of a folder as an ONNX graph with its tokenizer, once both give the same answers.

    Batch and length of the graph are free, up to the length that the model was trained with.

    Args:
        folder: what `train` left.
        out: the folder to write; a former export there is replaced.
        quantize: "int8" makes the weights whole numbers of 8 bits, and the inputs of matrix products as they come.
        tolerance: the largest difference of a probability that is put up with; by default that of `TOLERANCES`.
        texts: what both are tried on; by default random words of the tokenizer, from one to as many as fit.
        pairs: the second texts, if `texts` are given and the model reads pairs.

    Raises:
        ConfigError: the packages of the extra `export` are missing, or pairs are given to a model of single
            texts, or single texts to one of pairs.
        DataError: `folder` holds no whole model.
        RunError: the model cannot be written as a graph, or the graph gives other answers; `out` stays as it was.
    """
    _require()
    net = load_trained(folder, kinds=("single-label", "multi-label"))
    if texts is None:
        texts, pairs = _made_up(net)
    check_reads(folder, of_pairs(net.model.config), pairs is not None)
    longest = longest_text(net)
    limit = TOLERANCES[quantize] if tolerance is None else tolerance
    meta: dict[str, Any] = {"quantize": quantize}
    with atomic.write_dir(out, meta) as temporary:
        net.tokenizer.model_max_length = longest
        with quiet():
            net.tokenizer.save_pretrained(temporary)
        trace(net, folder, quantize, temporary)
        parity = check_parity(net, OnnxClassifier(temporary), texts, pairs)
        if not parity.difference <= limit:  # NaN fails, too
            way = "put up with it by" if quantize == "no" else "export without --quantize, or put up with it by"
            raise RunError(
                390,
                f"the exported model gives other answers: a probability differs by {parity.difference:.2g}, more than "
                f"{limit:g}; {way} --tolerance",
            )
        meta |= asdict(parity)
    return parity


def check_parity(
    net: TextNet, graph: OnnxClassifier, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> Parity:
    """Both models on the same texts."""
    longest = longest_text(net)
    ours, ours_per_second = _timed(lambda: logits_of_texts(net, texts, longest, pairs), len(texts))
    theirs, theirs_per_second = _timed(lambda: graph.logits(texts, longest, pairs), len(texts))
    p, q = (probabilities(logits, net.kind) for logits in (ours, theirs))
    same = float(_same_labels(ours, theirs, net.kind).double().mean())
    return Parity(len(texts), float((p - q).abs().max()), same, ours_per_second, theirs_per_second)


def _same_labels(ours: Tensor, theirs: Tensor, kind: Kind) -> Tensor:
    """Whether logits [n, C] of both give a text the same label, or all the same ones in multi-label data: [n]."""
    if kind == "multi-label":
        return ((ours >= 0) == (theirs >= 0)).all(-1)
    return ours.argmax(-1) == theirs.argmax(-1)


def _timed(answers: Callable[[], Tensor], texts: int) -> tuple[Tensor, float]:
    answers()  # the first pass makes buffers
    start = time.perf_counter()
    logits = answers()
    return logits, texts / (time.perf_counter() - start)


def trace(net: TextNet, folder: Path, quantize: Quantize, out: Path) -> None:
    """Writes the graph of the net that `folder` holds, and its configuration."""
    from transformers import AutoModelForSequenceClassification
    from transformers.exporters.configs import OnnxConfig
    from transformers.exporters.exporter_onnx import OnnxExporter
    from transformers.exporters.quantizers.quantizer_onnxruntime import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    longest = longest_text(net)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=longest)
    names = ["input_ids", "attention_mask"]
    if of_pairs(net.model.config) and "token_type_ids" in net.tokenizer.model_input_names:
        names.append("token_type_ids")
    inputs: dict[str, Any] = {name: torch.ones(2, min(8, longest), dtype=torch.long) for name in names}
    config = OnnxConfig(
        dynamic=True,
        dynamic_shapes={name: {0: batch, 1: length} for name in names},
        quantizer=OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(per_channel=True)) if quantize == "int8" else None,
    )
    try:
        with _silent():
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
            OnnxExporter().export(model, inputs, config).save_pretrained(out)  # type: ignore[no-untyped-call]
    except OSError:  # of the disk: the model's files have all been read before
        raise
    except Exception as error:  # tracing fails in as many ways as there are models
        raise RunError(391, f"this model cannot be written as an ONNX graph ({_reason(error)})") from error


def _made_up(net: TextNet) -> tuple[list[str], list[str] | None]:
    """Random words of the tokenizer in texts of one to as many tokens as fit, and second texts for a net of pairs."""
    rng = np.random.default_rng(0)
    known = np.setdiff1d(np.arange(len(net.tokenizer)), net.tokenizer.all_special_ids)
    sizes = np.geomspace(1, longest_text(net), _SAMPLE).astype(int)
    texts = [net.tokenizer.decode(rng.choice(known, size)) for size in sizes]
    return texts, texts[::-1] if of_pairs(net.model.config) else None


def check_reads(folder: Path, wanted: bool, given: bool) -> None:
    """Refuses single texts where the graph of a folder is one of pairs, and pairs where it is not.

    Raises:
        ConfigError: the graph reads the other.
    """
    if given != wanted:
        what, remedy = ("pairs of texts", "name the second column with") if wanted else ("single texts", "leave out")
        raise ConfigError(446, f"{folder} reads {what}: {remedy} --pair-column")


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import transformers.exporters  # noqa: F401
    except ImportError as error:
        raise _not_installed() from error


def _not_installed() -> ConfigError:
    return ConfigError(440, "exported models need more packages: pip install 'nlp-ssl[export]'")


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:160]}" if first else type(error).__name__


@contextmanager
def _silent() -> Iterator[None]:
    """Silences the tracers, which print their progress and warn of what concerns no user of this package."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with quiet(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
