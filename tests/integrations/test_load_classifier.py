"""`load_classifier`: a model that pools the mean in `Trainer` and `SSLTrainer`, and a stock one once it is saved."""

import json
import logging

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import tiny_bert, tiny_texts, tiny_tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from nlp_ssl import SSLTrainer, SSLTrainingArguments, load_classifier
from nlp_ssl.errors import ConfigError
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.nets.mean_pooling import MeanPooled
from nlp_ssl.nets.text import load_text_net

NAMES = {0: "neg", 1: "pos"}
SMALL = {"vocab_size": 37, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
         "max_position_embeddings": 64, "pad_token_id": 0, "embedding_size": 32}  # fmt: skip
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier")
    tiny_bert(path / "model", names=("other", "classes"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))
        yield path


def rows(n=16, seed=1):
    texts, names = tiny_texts(n, seed)
    return Dataset.from_dict({"text": texts, "label": [int(name == "pos") for name in names]})


def tokens(texts):
    return dict(tiny_tokenizer()(texts, padding=True, return_tensors="pt"))


def logits(model, texts):
    with torch.no_grad():
        return model.eval()(**tokens(texts)).logits


def sure(model):
    """With a last layer of which the answers differ."""
    with torch.no_grad():
        model.classifier.weight.mul_(40.0)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_it_gives_the_logits_of_a_run_and_its_folder_those_of_a_stock_model(family, tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, num_labels=2, **SMALL)
    AutoModelForSequenceClassification.from_config(config).base_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    texts = tiny_texts(6, seed=2)[0]
    torch.manual_seed(1)
    model = load_classifier(tmp_path / "model", id2label=NAMES)
    torch.manual_seed(1)
    net = load_text_net(str(tmp_path / "model"), ["neg", "pos"], pooling="mean").eval()
    found = logits(model, texts)
    assert isinstance(model, MeanPooled) and torch.allclose(found, logits_of_texts(net, texts, 64), atol=1e-6)
    assert len({tuple(row) for row in found.tolist()}) == 6 and model.config.label2id == {"neg": 0, "pos": 1}
    model.save_pretrained(tmp_path / "out")
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    described = json.loads((tmp_path / "out/config.json").read_text())
    assert described["architectures"] == [type(opened).__name__] and type(opened) in type(model).__mro__
    assert opened.config.num_hidden_layers == 3 and model.config.num_hidden_layers == 2
    assert torch.allclose(logits(opened, texts), found, atol=1e-5)
    torch.manual_seed(2)
    other = load_classifier(tmp_path / "model", id2label=NAMES)
    assert not torch.allclose(logits(other, texts), found, atol=1e-3)
    other.load_state_dict(load_file(tmp_path / "out/model.safetensors"))
    assert torch.equal(logits(other, texts), found)
    again = load_classifier(tmp_path / "out")
    assert type(again) is type(opened), "a trained one stays as it is"


def test_loss_and_forms_of_output(folder):
    model = load_classifier(folder / "model", num_labels=3)
    assert model.config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    inputs = tokens(tiny_texts(4, seed=2)[0])
    labels = torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        out = model.eval()(**inputs, labels=labels)
        loss, scores = model(**inputs, labels=labels, return_dict=False)
    assert torch.equal(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    assert torch.equal(loss, out.loss) and torch.equal(scores, out.logits) and model(**inputs).loss is None
    without = {name: value for name, value in inputs.items() if name != "attention_mask"}
    assert model(**without).logits.shape == (4, 3)
    answers = pipeline("text-classification", model=model, tokenizer=tiny_tokenizer())(["good fun"])
    assert answers[0]["label"].startswith("LABEL_")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"id2label": {0: "a", 2: "b"}}, "SSL489: labels have the numbers .0, 2., not 0 to 1"),
        ({"num_labels": 3, "id2label": NAMES}, "SSL489: labels have the numbers .0, 1., not 0 to 2"),
        ({"id2label": NAMES, "label2id": {"pos": 0, "neg": 1}}, "SSL489: id2label and label2id give the labels"),
        ({"num_labels": 0}, "SSL202: num_labels must lie in"),
    ],
)
def test_labels_that_are_none(folder, labels, message):
    with pytest.raises(ConfigError, match=message):
        load_classifier(folder / "model", **labels)


def test_names_may_be_given_either_way_round(folder):
    for labels in ({"label2id": {"pos": 1, "neg": 0}}, {"id2label": {"1": "pos", "0": "neg"}, "num_labels": 2}):
        assert load_classifier(folder / "model", **labels).config.id2label == NAMES


def arguments(cls, out, **more):
    usual = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 2, "use_cpu": True,
             "report_to": [], "disable_tqdm": True, "logging_steps": 1}  # fmt: skip
    return cls(str(out), **(usual | more))


def plain(folder, out, **more):
    """The stock Trainer."""
    train = rows().map(lambda batch: tiny_tokenizer()(batch["text"]), batched=True)
    return Trainer(
        sure(load_classifier(folder / "model", id2label=NAMES)), arguments(TrainingArguments, out, **more),
        train_dataset=train, eval_dataset=train, processing_class=tiny_tokenizer(),
    )  # fmt: skip


def with_pool(folder, out, method="mean_teacher", **more):
    usual = {"method": method, "unlabeled_ratio": 2, "max_length": 24, "warm_start": "none"}
    return SSLTrainer(
        sure(load_classifier(folder / "model", id2label=NAMES)),
        arguments(SSLTrainingArguments, out, **(usual | more)),
        train_dataset=rows(), unlabeled_dataset=rows(96, seed=3).remove_columns("label"), eval_dataset=rows(8, seed=4),
        processing_class=tiny_tokenizer(),
    )  # fmt: skip


@pytest.mark.parametrize("trainer", [plain, with_pool])
def test_a_trainer_resumes_to_the_same_weights_and_loads_the_best(trainer, folder, tmp_path):
    torch.manual_seed(0)
    whole = trainer(folder, tmp_path / "whole", eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
                    metric_for_best_model="eval_loss", greater_is_better=True)  # fmt: skip
    start = {name: value.clone() for name, value in whole.model.state_dict().items()}
    whole.train()
    saved = {n: load_file(tmp_path / f"whole/checkpoint-{n}/model.safetensors") for n in (2, 4)}
    assert whole.state.best_model_checkpoint.endswith("checkpoint-2"), "the loss falls, and here the largest is best"
    end = whole.model.state_dict()
    assert all(torch.equal(saved[2][name], value) for name, value in end.items())
    assert not torch.equal(saved[2]["classifier.weight"], saved[4]["classifier.weight"])
    assert {name for name in saved[4] if name not in end} == {n for n in saved[4] if ".layer.2." in n} != set()

    torch.manual_seed(1)  # another model, which the checkpoint replaces
    again = trainer(folder, tmp_path / "again")
    assert not torch.equal(again.model.classifier.weight, start["classifier.weight"])
    again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    assert again.state.global_step == 4
    assert all(torch.equal(saved[4][name], value) for name, value in again.model.state_dict().items())


def test_saving_draws_no_random_numbers(folder, tmp_path):
    model = load_classifier(folder / "model", id2label=NAMES)
    before = torch.get_rng_state()
    model.save_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_models_own_memory_is_trained_and_training_again_goes_on(folder, tmp_path):
    """The pooler starts near identity once, in `load_classifier`: not again where a net is made of the model."""
    trainer = with_pool(folder, tmp_path, save_strategy="no")
    model, pooler = trainer.model, trainer.model.bert.pooler.dense.weight.clone()
    assert torch.equal(pooler, 0.2 * torch.eye(32))
    trainer.train()
    assert trainer.engine.student.mean_pooling
    assert model.bert.pooler.dense.weight is trainer.engine.student.model.bert.pooler.dense.weight
    trained = model.bert.pooler.dense.weight.clone()
    assert not torch.equal(trained, pooler)
    trainer.args.learning_rate = trainer.args.head_learning_rate = 0.0
    trainer.train()
    assert torch.equal(model.bert.pooler.dense.weight, trained)


def test_a_new_layer_on_the_first_token_is_warned_of(folder, tmp_path, caplog):
    warned = "the model pools the first token, on which its last layer is untrained: nlp_ssl.load_classifier"

    def lines(model):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "nlp_ssl"):
            trainer = SSLTrainer(model, arguments(SSLTrainingArguments, tmp_path, method="supervised", max_length=24),
                                 train_dataset=rows(), processing_class=tiny_tokenizer())  # fmt: skip
        return trainer, [line for line in caplog.messages if line.startswith(warned)]

    stock = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=2)
    trainer, said = lines(stock)
    assert len(said) == 1 and trainer.model is stock and not isinstance(stock, MeanPooled), "it is not rebuilt"
    with torch.no_grad():
        stock.classifier.bias.copy_(torch.tensor([0.1, -0.1]))
    assert not lines(stock)[1]
    assert not lines(load_classifier(folder / "model", num_labels=2))[1]
    named, said = lines(str(folder / "model"))
    assert not said and isinstance(named.model, MeanPooled) and named.model.config.id2label == {0: "0", 1: "1"}
