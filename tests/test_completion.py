"""What the TAB key offers in bash, from the script that `nlp-ssl completion` prints."""

import shutil
import subprocess

import pytest

from nlp_ssl.cli import run
from nlp_ssl.cli.completion import script

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "complete.sh"
    path.write_text(script())

    def offered(*words):
        """Completions of the last word."""
        told = " ".join(f"'{word}'" for word in words)
        code = f"source {path}; COMP_WORDS=(nlp-ssl {told}); COMP_CWORD={len(words)}; _nlp_ssl; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pre"], ["pretrain", "predict"]),
        (["index", "me"], ["merge"]),
        (["index", "build", "--enc"], ["--encoder", "--encoding"]),
        (["index", "build", "--precision", "b"], ["bf16"]),
        (["train", "--labels-p"], ["--labels-per-class"]),
        (["train", "--method", "mixt"], ["mixtext"]),
        (["train", "--method", "self"], ["self_training"]),
        (["train", "--lr-scheduler-type", ""], ["cosine", "linear", "constant"]),
        (["train", "--method", "uda", "--ts"], ["--tsa"]),
        (["train", "--method", "fixmatch", "--ts"], []),
        (["train", "--method", "noisy_student", "--roun"], ["--rounds"]),
        (["pipeline", "--no-dis"], ["--no-distill"]),
        (["predict", "model", "--ov"], ["--overwrite"]),
        (["train", "--labeled", "l"], []),  # bash goes on with the names of files
    ],
)
def test_the_tab_key_offers(shell, words, offered):
    assert shell(*words) == offered


def test_the_command_prints_the_script(capsys):
    assert run(["completion"]) == 0
    assert capsys.readouterr().out == script()


def test_bash_takes_the_script_as_the_help_says(shell, tmp_path):
    (tmp_path / "nlp-ssl").write_text(f"cat <<'END'\n{script()}END\n")
    (tmp_path / "nlp-ssl").chmod(0o755)
    code = 'eval "$(nlp-ssl completion)"; complete -p nlp-ssl'
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert "-F _nlp_ssl nlp-ssl" in done.stdout


def test_a_command_line_without_any_flag_says_what_is_missing(capfd):
    for verb in ("train", "pipeline"):
        assert run([verb]) == 2
        assert "SSL206" in capfd.readouterr().err
