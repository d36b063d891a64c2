"""`nlp-ssl augment`: strong views of the texts of a file or of a folder of files, made once and kept."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import click
import xxhash

from nlp_ssl.augment.base import Augment
from nlp_ssl.augment.policy import BACK_TRANSLATION, Rewritten, parse_policy
from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.readers import SUFFIXES, check_regular, data_stem
from nlp_ssl.data.schema import log_notes
from nlp_ssl.data.sources import read_table
from nlp_ssl.data.table import Table
from nlp_ssl.errors import ConfigError, DataError, RunError, SSLError
from nlp_ssl.inference.embedder import Embedder
from nlp_ssl.paraphrase.back_translation import EngineName, engines_of, rewritings_folder, texts_of, watched
from nlp_ssl.paraphrase.cache import Cache
from nlp_ssl.paraphrase.checks import Checks, Cosines, LabelCheck
from nlp_ssl.paraphrase.engine import ParaphraseEngine
from nlp_ssl.paraphrase.gates import Gates, Report, View
from nlp_ssl.paraphrase.masked import MaskedLM
from nlp_ssl.paraphrase.rewrite import Rewriting
from nlp_ssl.paraphrase.views import made_of, write_views
from nlp_ssl.paraphrase.words import change_words
from nlp_ssl.utils.hashing import contents
from nlp_ssl.utils.paths import absolute, check_utf8
from nlp_ssl.utils.ranges import check
from nlp_ssl.utils.ray_pool import on_ray

log = logging.getLogger("nlp_ssl")
_MASKED_LM = "masked_lm"


@dataclass(frozen=True)
class AugmentOptions:
    """Flags of `augment` beside those of the gates."""

    how: Annotated[str, "back_translation, masked_lm, or word operations like tfidf(p=0.4)+swap"] = BACK_TRANSLATION
    engine: Annotated[EngineName, "what translates"] = "apertium"
    there: Annotated[str | None, "mode (Apertium) or model into the other language; several with commas"] = None
    back: Annotated[str | None, "mode or model back, one for each there"] = None
    temperature: Annotated[float, "of the sampling by models; 0 takes the likeliest token"] = 0.9
    masked_model: Annotated[str, "folder or hub name of the masked language model"] = "bert-base-uncased"
    masked_share: Annotated[float, "share of the words that it replaces"] = 0.15
    samples: Annotated[int, "views of each text; of several languages each sample takes the next one"] = 1
    workers: Annotated[int, "engines side by side"] = 1
    cosine_encoder: Annotated[str | None, "encoder (folder, hub name, bundled) that measures the cosine"] = None
    same_label: Annotated[Path | None, "trained model; views that it labels otherwise are not accepted"] = None
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    on_bad_lines: Annotated[Literal["error", "skip"], "what to do with ragged rows"] = "error"
    scheduler: Annotated[Literal["local", "ray"], "where the files of a folder are worked on"] = "local"
    cache_dir: Annotated[Path | None, "where finished rewritings are kept"] = None
    out: Annotated[Path | None, "Parquet file of the views (text, sample, view, outcome, cosine), or a folder"] = None
    overwrite: Annotated[bool, "replace that file"] = False

    def __post_init__(self) -> None:
        check(self.samples, "samples", 1, 1000)
        check(self.workers, "workers", 1, 1000)


def main(texts: str, options: AugmentOptions, gates: Gates) -> None:
    """Writes the views and says what became of the texts."""
    if options.out is None:
        raise ConfigError(206, "augment needs --out FILE: nlp-ssl augment pool.txt --out views.parquet")
    if gates.lowest_cosine > -1 and options.cosine_encoder is None:
        raise ConfigError(287, "--lowest-cosine needs an encoder that measures it: add --cosine-encoder bundled")
    pairs = _pairs(Path(texts), options.out)
    for source, out in pairs:
        check_utf8(out)
        if options.scheduler == "ray":
            absolute(source)
    job = Job(with_absolute_paths(options), gates)
    if not options.overwrite:
        pairs = [pair for pair in pairs if not job.is_done(*pair)]
    if not pairs:
        return
    report, errors = Report(), []
    for answer, error in on_ray(job.open, pairs, options.workers) if options.scheduler == "ray" else _here(job, pairs):
        if error:
            errors.append(error)
        else:
            report.merge(Report.of_json(answer))
    _show(report)
    if errors:
        raise RunError(331, f"{len(errors)} of {len(pairs)} files were not done; the first: {errors[0]}")


def _pairs(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """Files of texts, and the files of their views.

    Raises:
        DataError: the folder holds no file of texts, or the source is a pipe or a device.
        ConfigError: two files would have the same file of views, or one would take the place of the texts.
    """
    if out.resolve() == source.resolve():
        raise ConfigError(295, f"{out}: the views would take the place of the texts: name another --out")
    check_regular(source)
    if not source.is_dir():
        return [(source, out)]
    files = [p for p in sorted(source.iterdir()) if p.is_file() and p.name[0] not in "._" and data_stem(p) is not None]
    if not files:
        raise DataError(142, f"{source}: no files of texts in this folder: use {', '.join(SUFFIXES)}")
    pairs = [(file, out / f"{data_stem(file)}.parquet") for file in files]
    twice = [name for name, count in Counter(path.name for _, path in pairs).items() if count > 1]
    if twice:
        raise ConfigError(296, f"{source}: several files would become {out / twice[0]}: rename one of them")
    return pairs


def _here(job: "Job", pairs: Sequence[tuple[Path, Path]]) -> Iterator[tuple[str, str]]:
    """(answer, error) of each file, one after the other; what is wrong with a single file is raised."""
    with job.open() as work:
        for source, out in pairs:
            try:
                yield work(source, out), ""
            except SSLError as error:
                if len(pairs) == 1:
                    raise
                yield "", str(error)


def with_absolute_paths(options: AugmentOptions) -> AugmentOptions:
    """The options with folders that mean the same on any machine, and one copy of each engine for a worker of Ray."""
    folders = {
        name: type(value)(absolute(value))
        for name in ("there", "back", "masked_model", "cosine_encoder", "same_label", "cache_dir")
        if (value := vars(options)[name]) is not None and (name == "cache_dir" or Path(value).is_dir())
    }
    return replace(options, workers=1 if options.scheduler == "ray" else options.workers, **folders)


@dataclass(frozen=True)
class Job:
    """How views are made: a value, so that it can be sent to another machine."""

    options: AugmentOptions
    gates: Gates

    def is_done(self, source: Path, out: Path) -> bool:
        """Whether the file of views is there, made of this file in this way.

        Raises:
            ConfigError: the file is there and another.
        """
        if not out.exists():
            return False
        if made_of(out) != self._name(source):
            raise ConfigError(442, f"{out} exists and is made otherwise: name another place or add --overwrite")
        click.echo(f"{out} is there already")
        return True

    @cached_property
    def _how(self) -> str:
        """All that decides on views beside their texts; models are read once, not for each file."""
        options = replace(self.options, out=None, cache_dir=None, overwrite=False, workers=1, scheduler="local")
        return f"{options} {self.gates} {contents(vars(options).values())}"

    def _name(self, source: Path) -> str:
        """A hash of the file and of how its views are made."""
        digest = xxhash.xxh3_128(self._how.encode())
        try:
            with source.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        except OSError as error:
            raise DataError(101, f"{source}: cannot be read ({error.strerror}): check the path") from error
        return digest.hexdigest()

    @contextmanager
    def open(self) -> Iterator[Callable[[Path, Path], str]]:
        """What works on a file and returns the report as JSON; what it loads for the first file serves the others."""
        options, gates, checks = self.options, self.gates, _checks(self.options)
        policy = _policy(options.how)
        cache: Cache | None = None
        with ExitStack() as stack:
            if policy is None:
                cache = stack.enter_context(Cache(options.cache_dir or rewritings_folder()))
                make = stack.enter_context(
                    Rewriting(
                        engines(options), cache, samples=options.samples, workers=options.workers, gates=gates,
                        checks=checks,
                    )
                )  # fmt: skip

            def views(table: Table) -> Iterator[View]:
                if policy is not None:
                    return change_words(table.texts, policy, samples=options.samples, gates=gates, checks=checks)
                return make(texts_of(table.texts))

            def work(source: Path, out: Path) -> str:
                name = self._name(source)
                table = read_table(
                    source,
                    text_column=options.text_column,
                    encoding=options.encoding,
                    on_bad_lines=options.on_bad_lines,
                    label_columns=(),
                )
                log_notes(table.notes)
                report = Report()
                total = len(table) * options.samples
                write_views(
                    out, watched(views(table), total, report, lambda: 0 if cache is None else cache.written), name
                )
                return report.to_json()

            yield work
            if cache is not None:
                log.info("%d rewritings are new; what was known came from the cache", cache.written)


def engines(options: AugmentOptions) -> list[ParaphraseEngine]:
    if options.how == _MASKED_LM:
        return [MaskedLM(options.masked_model, options.masked_share, options.temperature)]
    return engines_of(options.engine, options.there, options.back, options.temperature)


def _policy(how: str) -> Augment | None:
    """The word operations of --how; None where an engine rewrites."""
    if how in (BACK_TRANSLATION, _MASKED_LM):
        return None
    policy = parse_policy(how)
    if isinstance(policy, Rewritten):
        raise ConfigError(292, f"--how {how}: make the back-translations alone; `train --strong` adds word operations")
    return policy


def _checks(options: AugmentOptions) -> Checks:
    """The models that judge, loaded when the first views are there."""
    encoder, classifier = options.cosine_encoder, options.same_label
    return Checks(
        None if encoder is None else Cosines(Embedder(encoder_name(encoder))),
        None if classifier is None else LabelCheck(classifier),
    )


def _show(report: Report) -> None:
    for line in report.lines():
        click.echo(line)
    for text, view in report.examples:
        click.echo(f"  {_short(text)}\n    -> {_short(view)}")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 160 else f"{text[:157]}..."


COMMANDS = {
    "augment": Spec(
        main,
        "rewrite texts (back-translation, masked words), once, for training on them",
        "Rewrites every text of TEXTS and writes the views to a Parquet file that nlp-ssl train --views takes. What is "
        "finished is kept: an interrupted command goes on where it stopped, a changed text is done alone. TEXTS may be "
        "a folder: each of its files becomes a file of the folder --out, here or on a Ray cluster.",
        "nlp-ssl augment pool.txt --out views.parquet --workers 2",
        flags=(AugmentOptions(), Gates()),
        arguments=(Argument("texts"),),
        first=("text_column", "how", "engine", "samples", "same_label", "workers", "out", "overwrite"),
    )
}
