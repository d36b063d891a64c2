"""What to know about labels and texts before training: errors, warnings, facts and advice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nlp_ssl.data.bundled import encoder_name
from nlp_ssl.data.dataset import Data
from nlp_ssl.data.table import Table
from nlp_ssl.doctor.advice import Advice, advise
from nlp_ssl.doctor.finding import Fact, Finding
from nlp_ssl.doctor.fix import TaskOptions, fixed
from nlp_ssl.doctor.labels import label_facts, label_warnings
from nlp_ssl.doctor.look import Look, take_look
from nlp_ssl.errors import ConfigError, SSLError
from nlp_ssl.nets.text import load_text_net

__all__ = ["Advice", "Diagnosis", "Fact", "Finding", "TaskOptions", "diagnose"]


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a set of tables, what they hold, and what to train.

    Attributes:
        errors: what stops training: the lines that it would end with, in that order.
        warnings: what may spoil it, the worst first.
        facts: what the files hold.
        advice: None as long as something stops training.
    """

    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    facts: tuple[Fact, ...]
    advice: Advice | None


def diagnose(
    tables: Mapping[str, Table | None],
    model: str,
    *,
    max_length: int = 128,
    options: TaskOptions | None = None,
    known: Sequence[Finding] = (),
) -> Diagnosis:
    """Examines the tables "labeled", "unlabeled", "dev" and "test", with a frozen encoder for what words do not show.

    Args:
        tables: by role; None, or no entry, where there is none.
        model: folder or hub name of the encoder, or "bundled".
        max_length: tokens of a text that training will read.
        options: what training will do about labels and leaks.
        known: errors from reading the tables.
    """
    options = options or TaskOptions()
    data, more = fixed(tables, options)
    errors = [*known, *more]
    look: Look | None = None
    if data is not None:
        try:
            look = _look(data, model, max_length, options.seed)
        except SSLError as error:
            errors.append(Finding("error", str(error), error.code))
    labeled = tables.get("labeled")
    warnings = [] if data is None or labeled is None else list(label_warnings(labeled, data))
    facts = [] if data is None else list(label_facts(data))
    if look is not None:
        warnings += look.warnings()
        facts += look.facts()
    advice = None if errors or data is None or look is None else advise(data, look)
    return Diagnosis(tuple(errors), tuple(warnings), tuple(facts), advice)


def _look(data: Data, model: str, max_length: int, seed: int) -> Look:
    net = load_text_net(encoder_name(model), data.classes).eval()
    longest = net.longest()
    if longest is not None and max_length > longest:
        raise ConfigError(229, f"max_length is {max_length}, the model has positions for {longest} tokens: lower it")
    return take_look(net, data, max_length, seed)
