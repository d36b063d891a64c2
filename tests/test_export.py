"""A trained model as an ONNX graph: the same answers, or no graph."""

import json
import shutil

import numpy as np
import pytest
import torch
from pairs import pair_rows, pair_tokenizer, roberta_like
from tiny import saved_classifier, tiny_texts

from nlp_ssl.cli import run
from nlp_ssl.inference.export import OnnxClassifier, check_parity
from nlp_ssl.inference.predict import logits_of_texts
from nlp_ssl.nets.text import MULTI_LABEL, PAIRS, load_text_net

for package in ("onnx", "onnxscript", "onnxruntime", "transformers.exporters"):
    pytest.importorskip(package, reason="needs pip install 'nlp-ssl[export]'")

TEXTS, _ = tiny_texts(40, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier in "out" whose answers differ from text to text, its graph in "onnx", texts in "t.txt"."""
    folder = tmp_path_factory.mktemp("export")
    saved_classifier(folder, ["neg", "pos", "=it"], TEXTS)
    (folder / "t.txt").write_text("\n".join([*TEXTS[:20], "", *TEXTS[20:], "good " * 200]) + "\n")
    (folder / "p.csv").write_text("text,b\ngood,bad\n")
    assert run(["export", str(folder / "out"), "--out", str(folder / "onnx")]) == 0
    return folder


def answers(model, folder, capsys, *more):
    return predicted(model, folder / "t.txt", capsys, *more)


def predicted(model, file, capsys, *more):
    capsys.readouterr()
    assert run(["predict", str(model), str(file), "--json", "--all", "--mixed-precision", "no", *more]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def assert_alike(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a["row"] == b["row"] and a["label"] == b["label"]
        assert a["probability_pos"] == pytest.approx(b["probability_pos"], abs=2e-6)


def test_a_graph_answers_as_its_model(folder, capsys):
    """One text or forty, one word or more than fit."""
    ours, theirs = answers(folder / "out", folder, capsys), answers(folder / "onnx", folder, capsys)
    assert len(ours) == 42 and ours[20]["label"] is None
    assert len({row["label"] for row in ours}) > 2, "the model must tell texts apart"
    assert_alike(ours, theirs)
    short = answers(folder / "onnx", folder, capsys, "--max-length", "4")
    assert_alike(short, answers(folder / "out", folder, capsys, "--max-length", "4"))
    assert short != theirs


def marked(folder, **values):
    """Notes in the config.json of a saved model."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize("tokenizer", [pair_tokenizer, roberta_like])
def test_a_graph_of_pairs_answers_as_its_model(tmp_path, capsys, tokenizer):
    out, graph = saved_classifier(tmp_path, ["same", "other"], TEXTS), tmp_path / "onnx"
    tokenizer().save_pretrained(out)
    marked(out, **{PAIRS: True})
    first, second, _ = pair_rows(24, seed=3)
    rows = "".join(f"{a},{b}\n" for a, b in zip(first, second, strict=True))
    (tmp_path / "t.csv").write_text(f"text,second\n{rows}")
    columns = ["--text-column", "text", "--pair-column", "second"]
    assert run(["export", str(out), "--out", str(graph), "--texts", str(tmp_path / "t.csv"), *columns]) == 0
    assert "24 texts: 100.0% same labels" in capsys.readouterr().out
    ours, theirs = (predicted(model, tmp_path / "t.csv", capsys, *columns) for model in (out, graph))
    assert len(ours) == 24 and len({row["probability_same"] for row in ours}) > 20
    for a, b in zip(ours, theirs, strict=True):
        assert a["label"] == b["label"] and a["probability_same"] == pytest.approx(b["probability_same"], abs=2e-6)
    for argv in (["predict", str(graph), str(tmp_path / "t.csv"), "--text-column", "text"],
                 ["export", str(out), "--out", str(tmp_path / "x"), "--texts", str(tmp_path / "t.csv"),
                  "--text-column", "text"]):  # fmt: skip
        assert run(argv) == 2
        assert "reads pairs of texts: name the second column with --pair-column" in capsys.readouterr().err
    assert run(["export", str(out), "--out", str(tmp_path / "x")]) == 0, "random words make pairs, too"


def test_a_graph_of_several_labels_answers_as_its_model(tmp_path, capsys):
    out, graph = saved_classifier(tmp_path, ["a", "b", "c"], TEXTS), tmp_path / "onnx"
    marked(out, problem_type=MULTI_LABEL)
    (tmp_path / "t.txt").write_text("\n".join(TEXTS) + "\n")
    assert run(["export", str(out), "--out", str(graph), "--texts", str(tmp_path / "t.txt")]) == 0
    assert "40 texts: 100.0% same labels" in capsys.readouterr().out
    ours, theirs = (predicted(model, tmp_path / "t.txt", capsys) for model in (out, graph))
    assert {len(row["label"]) for row in ours} >= {0, 1, 2}, "none, one or two labels"
    net = load_text_net(str(out)).eval()
    with torch.no_grad():
        net.classifier.bias[0].add_(1.0)
    shifted = sum(0 > torch.tensor(row["probability_a"]).logit() >= -1 for row in ours)
    assert shifted and check_parity(net, OnnxClassifier(graph), TEXTS).same_labels == 1 - shifted / 40
    for a, b in zip(ours, theirs, strict=True):
        assert a["label"] == b["label"] and a["probability_a"] == pytest.approx(b["probability_a"], abs=2e-6)


def test_any_program_with_onnx_runtime_can_run_it(folder):
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(folder / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "onnx")
    inputs = tokenizer(TEXTS[:3], padding=True, return_tensors="np")
    (logits,) = session.run(["logits"], {k: inputs[k] for k in ("input_ids", "attention_mask")})
    wanted = logits_of_texts(load_text_net(str(folder / "out")).eval(), TEXTS[:3], 64)
    assert np.allclose(logits, wanted.numpy(), atol=1e-4)


def test_int8_is_smaller_and_its_distance_is_told(folder, tmp_path, capsys):
    argv = ["export", str(folder / "out"), "--out", str(tmp_path / "x"), "--quantize", "int8", "--texts",
            str(folder / "t.txt"), "--json"]  # fmt: skip
    assert run(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["texts"] == 41 and 1e-6 < found["difference"] < 0.1 and found["same_labels"] > 0.9
    assert found["torch_per_second"] > 0 and found["onnx_per_second"] > 0
    assert (tmp_path / "x/model.onnx.data").stat().st_size < 0.6 * (folder / "onnx/model.onnx.data").stat().st_size


def test_a_graph_that_differs_is_not_kept(folder, tmp_path, capsys, monkeypatch):
    """The graph of a model whose classes have changed places."""
    (tmp_path / "other").mkdir()
    net = load_text_net(str(folder / "out"))
    with torch.no_grad():
        net.classifier.weight.copy_(net.classifier.weight.flip(0))
    net.save(tmp_path / "other")

    def of_another_model(model, longest, quantize, out):
        for name in ("model.onnx", "model.onnx.data", "export.json", "config.json"):
            shutil.copy(folder / "onnx" / name, out)

    monkeypatch.setattr("nlp_ssl.inference.export.trace", of_another_model)
    for more in ([], ["--overwrite", "--texts", str(folder / "t.txt")]):
        assert run(["export", str(tmp_path / "other"), "--out", str(tmp_path / "x"), *more]) == 1
        assert "SSL390" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["other"]
    assert run(["export", str(tmp_path / "other"), "--out", str(tmp_path / "x"), "--tolerance", "1"]) == 0
    assert "probabilities differ by 0." in capsys.readouterr().out
    assert run(["export", str(folder / "out"), "--out", str(tmp_path / "x"), "--overwrite"]) == 0, "a former export"


def test_a_model_that_cannot_be_traced_is_one_line(folder, tmp_path, capsys, monkeypatch):
    from transformers.exporters.exporter_onnx import OnnxExporter

    def fails(self, model, inputs, config):
        raise ValueError("no such operator\nand a long story")

    monkeypatch.setattr(OnnxExporter, "export", fails)
    assert run(["export", str(folder / "out"), "--out", str(tmp_path / "x")]) == 1
    shown = capsys.readouterr().err
    assert "SSL391" in shown and "no such operator" in shown and "story" not in shown and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["out"], 2, "SSL206"),
        (["out", "--out", "onnx"], 2, "SSL442"),
        (["out", "--out", "out", "--overwrite"], 2, "SSL442"),  # a model is not a former export
        (["onnx", "--out", "new"], 3, "model.safetensors is missing"),
        (["out", "--out", "new", "--quantize", "int4"], 2, "int8"),
        (["out", "--out", "new", "--tolerance", "2"], 2, "tolerance must lie in [0, 1]"),
        (["out", "--out", "new", "--texts", "nowhere.txt"], 3, "nowhere.txt"),
        (["out", "--out", "new", "--pair-column", "b"], 2, "name it with --texts"),
        (["out", "--out", "new", "--texts", "p.csv", "--pair-column", "b"], 2, "reads single texts: leave out"),
    ],
)
def test_bad_wishes_are_one_line(folder, monkeypatch, capsys, argv, code, words):
    monkeypatch.chdir(folder)
    assert run(["export", *argv]) == code
    captured = capsys.readouterr()
    assert words in captured.err and "Traceback" not in captured.err and not (folder / "new").exists()
    assert (folder / "out/model.safetensors").exists()


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_damaged_export_is_one_line(folder, tmp_path, capsys, name):
    for path in (folder / "onnx").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes() if path.name != name else b"x" * 99)
    assert run(["predict", str(tmp_path), str(folder / "t.txt")]) == 3
    captured = capsys.readouterr()
    assert "SSL123" in captured.err and "Traceback" not in captured.err and captured.out == ""
    (tmp_path / name).unlink()
    assert run(["predict", str(tmp_path), str(folder / "t.txt")]) == 3
    assert f"{name} is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, fields",
    [
        ("config.json", {"dtype": "evil"}),
        ("config.json", {"id2label": None, "num_labels": 10**9}),
        ("config.json", {"id2label": {"0": "neg", "1": "pos"}}),  # the graph has three outputs
        ("config.json", {"id2label": ["neg", "pos", "x"]}),
        ("tokenizer_config.json", {"model_max_length": "evil"}),
        ("tokenizer_config.json", {"model_input_names": 5}),
    ],
    ids=str,
)
def test_an_export_with_changed_fields_is_one_line(folder, tmp_path, capsys, name, fields):
    place = shutil.copytree(folder / "onnx", tmp_path / "x")
    values = json.loads((place / name).read_text()) | fields
    (place / name).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    assert run(["predict", str(place), str(folder / "t.txt")]) == 3
    shown = capsys.readouterr()
    assert len(shown.err.strip().splitlines()) == 1 and shown.err.startswith("SSL123: ") and shown.out == ""


def test_longer_texts_than_the_graph_takes_are_refused(folder, capsys):
    assert run(["predict", str(folder / "onnx"), str(folder / "t.txt"), "--max-length", "65"]) == 2
    assert "64 tokens" in capsys.readouterr().err
