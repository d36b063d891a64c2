"""`nlp-ssl pretrain`: an encoder that knows the domain, from texts without labels."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from nlp_ssl.cli.command import Argument, Spec
from nlp_ssl.config import DEFAULT_MODEL, TrainConfig
from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.schema import content_hash_of, log_notes
from nlp_ssl.data.sources import read_table
from nlp_ssl.errors import ConfigError
from nlp_ssl.experiments.pretrain import objective_of, pretrain, save_encoder, start_from
from nlp_ssl.nets.text import Pooling
from nlp_ssl.task import text_task
from nlp_ssl.training.run_folder import RunFolder

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class PretrainOptions:
    """Flags of `pretrain` beside those of the loop."""

    model: Annotated[str, "folder or hub name of the encoder to begin with, or bundled"] = DEFAULT_MODEL
    objective: Annotated[Literal["mlm", "contrastive"], "guess hidden words, or tell texts apart (SimCSE)"] = "mlm"
    pooling: Annotated[Pooling, "how token vectors become one"] = "auto"
    text_column: Annotated[str | None, "column of the texts, where it is not found by itself"] = None
    encoding: Annotated[str, "of the file"] = "utf-8"
    on_bad_lines: Annotated[Literal["error", "skip"], "what to do with ragged rows"] = "error"
    output_dir: Annotated[Path | None, "where the encoder goes"] = None
    max_length: Annotated[int, "tokens of a text; longer ones are cut"] = 128
    resume: Annotated[bool, "go on where an earlier run stopped"] = False
    overwrite: Annotated[bool, "replace an earlier run"] = False
    cache_dir: Annotated[Path | None, "where tokenized texts are kept"] = None


def main(texts: str, options: PretrainOptions, config: TrainConfig) -> None:
    """Trains on the texts, without rows of dev and test, and saves the encoder."""
    if options.output_dir is None:
        raise ConfigError(206, "pretrain needs --output-dir DIR: nlp-ssl pretrain pool.txt --output-dir encoder")
    folder = RunFolder(options.output_dir, resume=options.resume)
    folder.check(overwrite=options.overwrite, models=[options.model])
    table = read_table(
        texts,
        text_column=options.text_column,
        encoding=options.encoding,
        on_bad_lines=options.on_bad_lines,
        label_columns=(),
    )
    log_notes(table.notes)
    kept = np.flatnonzero([split not in ("dev", "test") for split in table.splits or ["train"] * len(table)])
    none = np.zeros(0, dtype=np.int64)
    pool = table.take(kept).texts
    data = Data(
        ("LABEL_0", "LABEL_1"), np.full(len(pool), -1), none, np.arange(len(pool)), none, none,
        content_hash=content_hash_of((), pool, []), texts=pool,
    )  # fmt: skip
    task = text_task(
        data, encoder_name(options.model), pooling=options.pooling, max_length=options.max_length,
        cache_dir=options.cache_dir,
    )  # fmt: skip
    if options.overwrite:
        folder.clear()
    weights = pretrain(objective_of(options.objective), task, config, config.max_steps, folder=folder)
    save_encoder(start_from(task, weights).build(0), options.output_dir)
    log.info("encoder saved to %s", folder)


COMMANDS = {
    "pretrain": Spec(
        main,
        "make an encoder that knows your domain, from texts without labels",
        "Trains an encoder on the TEXTS of a domain, without labels; nlp-ssl train --model takes the result.",
        "nlp-ssl pretrain pool.txt --objective mlm --max-steps 500 --output-dir encoder",
        flags=(PretrainOptions(), TrainConfig()),
        arguments=(Argument("texts"),),
        first=("text_column", "model", "max_length", "objective", "max_steps", "batch_size", "learning_rate", "seed",
               "output_dir", "resume"),
        without=("warm_start", "warm_steps", "eval_steps", "patience", "eval_fgsm", "calibrate", "align",
                 "class_weights", "effective_beta", "logit_adjustment", "guard"),
    )
}  # fmt: skip
