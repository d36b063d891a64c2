"""The model card beside a saved model: what it was trained on, what it came to, and how far to trust that."""

import logging
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from nlp_ssl.experiments.compare import score_table
from nlp_ssl.report.collect import Collected, collect
from nlp_ssl.report.page import model_name
from nlp_ssl.training.outcome import Outcome
from nlp_ssl.training.run_folder import CARD_MARK, RunFolder
from nlp_ssl.utils import atomic

log = logging.getLogger("nlp_ssl")
_CLASSES = 50  # names listed
_USE = """
```python
from transformers import pipeline

classify = pipeline("text-classification", "FOLDER")
print(classify("a text"))
```
"""


def write_card(folder: Path, license: str = "unknown") -> Path | None:
    """Writes README.md with a front matter that the Hugging Face hub understands; a README of another kind stays.

    Args:
        folder: a run's folder, finished.
        license: an identifier of the hub, e.g. "apache-2.0"; of encoder and data the run knows no licenses.

    Raises:
        ConfigError: there is no run in the folder.
        RunError: the card cannot be written.
    """
    run = RunFolder(folder)
    if run.card.exists() and not run.has_our_card():
        log.warning("%s is not ours and stays: there is no model card", run.card)
        return None
    atomic.write_text(run.card, card(collect(folder), license).encode(errors="replace").decode())
    return run.card


def card(run: Collected, license: str) -> str:
    """The card's text."""
    parts = [
        f"---\n{_front_matter(run, license)}\n---\n\n{CARD_MARK}\n\n# {_plain(run.name)}",
        _summary(run),
        "## Did the unlabeled rows help?",
        run.comparison.verdict(run.split) if run.comparison is not None else "The run has not finished.",
        _scores(run),
        "## Data",
        _rows(_data(run)),
        "## Training",
        _rows(_training(run)),
        "## Probabilities",
        _probabilities(run),
        *(["## Use", _use(run)] if _kind(run) == "text" else []),
        "## License",
        f"The license field says `{license}`. Encoder and data have licenses of their own, unknown to the run.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(run: Collected, license: str) -> str:
    """Metadata as the hub reads them, with the scores of the saved model."""
    text = _kind(run) == "text"
    task = "text-classification" if text else "image-classification"
    outcome, results = _saved(run), []
    if outcome is not None and run.split in outcome.scores:
        scores = outcome.scores[run.split]
        for metric, value in scores.named().items():
            results.append(
                EvalResult(
                    task_type=task, dataset_type="custom", dataset_name=f"{run.split} rows",
                    metric_type="f1" if "F1" in metric else "accuracy", metric_name=metric,
                    metric_value=round(value, 4),
                )
            )  # fmt: skip
    base = str(run.identity.get("task", {}).get("model", ""))
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not Path(base).exists()
    data = ModelCardData(
        license=license, library_name="transformers" if text else None, pipeline_tag=task,
        base_model=base if on_hub and text else None, model_name=_plain(run.name) or "model",
        tags=["nlp-ssl", "semi-supervised", run.trained_by], metrics=["accuracy", "f1"], eval_results=results or None,
    )  # fmt: skip
    return str(data.to_yaml())


def _summary(run: Collected) -> str:
    names = [str(name) for name in _facts(run).get("classes", ())]
    listed = ", ".join(f"`{_plain(name)}`" for name in names[:_CLASSES]) + (", ..." if len(names) > _CLASSES else "")
    what = f"{_kind(run).capitalize()} classifier trained with `{run.trained_by}` of nlp-ssl"
    return f"{what}; {len(names)} classes: {listed}." if names else f"{what}."


def _scores(run: Collected) -> str:
    if run.comparison is None or run.split not in run.comparison.outcomes[0].scores:
        return ""
    header, *rows = score_table(run.comparison, run.split)
    lines = [
        " | ".join((f"{run.comparison.score_name(run.split)} in %", *header[1:])),
        " | ".join(["---"] * len(header)),
        *map(" | ".join, rows),
    ]
    kept = f"\n\nThe saved model is that of {run.saved}." if run.saved is not None else ""
    return "\n".join(f"| {line} |" for line in lines) + kept


def _data(run: Collected) -> dict[str, Any]:
    facts, rows_by_part = _facts(run), {}
    if facts:
        rows, labels = facts["rows"], facts.get("labels")
        each = f" ({', '.join(map(str, labels))} by class)" if labels and len(labels) <= _CLASSES else ""
        pseudo_labeled = f" ({rows['pseudo_labeled']} pseudo-labeled)" if rows.get("pseudo_labeled") else ""
        rows_by_part = {
            "labeled rows": f"{rows['labeled']}{each}",
            "unlabeled rows": f"{rows['unlabeled']}{pseudo_labeled}",
            "dev and test rows": f"{rows['dev']}, {rows['test']}",
        }
    hashes = {str(side.identity["data"]) for side in run.runs if "data" in side.identity}
    return {**rows_by_part, "content hash of texts, labels and parts": ", ".join(f"`{one}`" for one in sorted(hashes))}


def _training(run: Collected) -> dict[str, Any]:
    identity, compared = run.identity, run.comparison
    options = ", ".join(f"{k}={v}" for k, v in identity.get("options", {}).items())
    config = identity.get("config", {})
    baseline = compared.baseline(run.split) if compared is not None else None
    return {
        "encoder": f"`{_plain(model_name(str(identity.get('task', {}).get('model', 'unknown'))))}`",
        "method": f"`{run.trained_by}`" + (f" ({_plain(options, 300)})" if options else ""),
        "seeds": ", ".join(map(str, run.seeds)),
        "label-only baseline": baseline or "none was trained",
        "steps": run.first.outcome.steps if run.first.outcome is not None else "not finished",
        "tokens of a text at most": run.identity.get("task", {}).get("max_length", "unknown"),
        "rows of a step": f"{config.get('batch_size')} labeled, {config.get('unlabeled_ratio')} unlabeled for each",
    }


def _probabilities(run: Collected) -> str:
    temperature, how = _facts(run).get("temperature", 1.0), run.identity.get("config", {}).get("calibrate", "none")
    if how == "none":
        sentence = "Not calibrated (`--calibrate dev` or `--calibrate labels` does it)."
    else:
        rows = "the dev rows" if how == "dev" else "labels held out in turn"
        sentence = f"Calibrated: the last layer holds a temperature of {temperature:.3f}, fitted on {rows}."
    outcome = _saved(run)
    if outcome is not None and run.split in outcome.scores:
        sentence += (
            f" Expected calibration error on the {run.split} rows: {outcome.scores[run.split].calibration_error:.3f}."
        )
    return sentence


def _saved(run: Collected) -> Outcome | None:
    """What the saved model came to: of runs before it was noted, the first seed's of the method."""
    compared, saved = run.comparison, run.saved
    if compared is None or saved is None or saved.side not in compared.results or saved.seed not in compared.seeds:
        return run.first.outcome
    return compared.results[saved.side][compared.seeds.index(saved.seed)]


def _use(run: Collected) -> str:
    every = '"FOLDER", top_k=None)  # every label: it applies from 0.5 on'
    return _USE.strip().replace('"FOLDER")', every) if run.multi_label else _USE.strip()


def _rows(values: dict[str, Any]) -> str:
    return "\n".join(
        ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in values.items() if value != "")]
    )


def _facts(run: Collected) -> dict[str, Any]:
    return dict(run.first.predictions.facts) if run.first.predictions is not None else {}


def _kind(run: Collected) -> str:
    return str(_facts(run).get("kind", "text"))


def _plain(text: str, most: int = 60) -> str:
    """Text that no Markdown or HTML can hide in."""
    shown = re.sub(r"[`|<>\[\]\\\s\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+", " ", text).strip()
    return shown if len(shown) <= most else shown[:most] + "\u2026"
