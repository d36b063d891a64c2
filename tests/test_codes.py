"""Errors: one code, one meaning, and no message that names a flag which its command does not have.

The walker reads the sources: every call that makes an error, its code and the words of its message.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import nlp_ssl
from nlp_ssl.cli import run
from nlp_ssl.cli.command import flag_table
from nlp_ssl.registry import BUILT_IN

ROOT = Path(nlp_ssl.__file__).parent
FILES = {".".join(("nlp_ssl", *p.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): p
         for p in ROOT.rglob("*.py")}  # fmt: skip
# Of codes that are raised from several places what they mean, and words of which each of their messages has one.
MEANINGS = {
    101: ("a file that is to be read is not there or cannot be opened", "no such file|cannot be read"),
    102: ("there are no rows", "no rows|is empty|no records"),
    105: ("a kind of source that is not known", "is not a table|unknown format"),
    106: ("another encoding than the one named", "encoding"),
    108: ("a column is not there", "no column|no text column|no label column|no text and no label column"),
    112: ("JSON that is none", "JSON"),
    113: ("damaged data in a known format", "damaged|not a readable"),
    115: ("the label of a row cannot be one", "give each text one label"),
    116: ("whether -1 is a class has to be said", "-1|unlabeled"),
    118: ("no rows of the split", "split|dev and test rows"),
    121: ("columns of different lengths", "give one"),
    123: ("no saved model that can be opened", "exported model|trained model"),
    132: ("nothing is labeled", "no row has a label"),
    133: ("there is a single class", "class"),
    134: ("a label that the labeled rows do not have", "class of the labeled set|among the class names"),
    135: ("a class has lost all of its rows", "no usable labeled row left"),
    136: ("names of classes that are none or read alike", "nearly|read alike|read |is blank"),
    139: ("rows to be scored have no labels", "has a label"),
    142: ("a folder without files of texts", "no files of texts"),
    143: ("an index that is missing or damaged", "index|restore it|build it again"),
    145: ("a weight or a number of copies that is none", "number"),
    146: ("probabilities that are none, or of other classes", "probabilities"),
    151: ("the note on texts out of scope is damaged or of another run", "--overwrite"),
    184: ("an index that is not finished", "index build"),
    188: ("weights of rows that cannot be", "sample_weight"),
    190: ("a column that is none", "1d array"),
    195: ("no text file", "not text"),
    197: ("a cell of labels that cannot be read", "error"),
    201: ("no such method here", "unknown method|works in rounds"),
    203: ("no such option", "unknown option|unknown flag"),
    204: ("a value of another kind", "cannot be|must be"),
    206: ("a command lacks a flag or an argument", "needs"),
    207: ("trackers that are not known", "tracker"),
    209: ("seeds that cannot be", "seed"),
    213: ("an output folder is needed", "needs an output folder"),
    214: ("a run with other settings", "other settings"),
    215: ("checkpoints have no place", "output folder"),
    216: ("the output folder cannot be used", "cannot"),
    219: ("the output folder holds something that would be lost", "is not empty|would be lost|--overwrite removes"),
    220: ("the encoder cannot be opened", "cannot open the model"),
    229: ("more tokens than the model has positions for", "max_length"),
    232: ("two sources of labels for the pool", "both label the pool"),
    234: ("a frozen net that does not fit the data", "knows|logits"),
    238: ("a teacher of other classes", "knows the classes"),
    253: ("a file of flags that is none", "YAML|flags"),
    271: ("a pretext task that does not fit the data", "pretext task"),
    282: ("bounds of the gates exclude each other", "gates:"),
    284: ("flags of the strong view that do not go together", "strong|rewritings"),
    285: ("a translation model that cannot be opened", "can be opened|cannot be opened"),
    290: ("a masked language model that cannot be opened", "masked language model"),
    295: ("the result would replace what is read", "would take the place"),
    297: ("the folder holds another index or none", "index|started with|missing beside|corpora"),
    298: ("a kind of index that cannot be", "index"),
    299: ("a search that cannot be", "query|queries|k is"),
    311: ("a checkpoint or an index is damaged", "damaged|is not that of|message"),
    312: ("a file of a checkpoint or an index is missing", "is missing"),
    315: ("a checkpoint or an index cannot be read", "cannot read"),
    316: ("there is no space to write", "free space"),
    319: ("the optimizer's state cannot be saved or restored", "state|only tensors"),
    321: ("a file of labels that is damaged or of another run", "is damaged|of another run"),
    330: ("apertium failed", "apertium|pipe"),
    401: ("labels cannot be held out to calibrate", "calibrate labels"),
    407: ("--tune cannot be read", "--tune"),
    409: ("two flags choose the same setting", "choose"),
    411: ("what marks unlabeled rows cannot be", "unlabeled-value|minus_one"),
    442: ("the file is there already", "exists"),
    453: ("pairs where single texts are wanted", "for single texts"),
    471: ("a dataset that is none for the Trainer", "datasets.Dataset|no column"),
    472: ("a setting that the Trainer has itself", "TrainingArguments|warm start"),
    473: ("what SSLTrainer cannot do", "does not support"),
    477: ("a part that is for single-label data", "single-label"),
    479: ("a separator that cannot be", "--label-separator"),
    487: ("the method of a Trainer, named in two ways or in none", "method"),
    489: ("names and numbers of labels that do not go together", "number"),
    127: ("rows for scores that are no two columns", "and their labels"),
    486: ("callbacks that are none", "callback"),
}  # fmt: skip
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_OTHER_PROGRAMS = {"--no-deps", "--cpu", "--num", "--num-processes", "--nproc"}
# Flags that 0.1.0 had, and patterns of flags, stand there as such.
_NOT_WALKED = {"nlp_ssl.cli.options", "nlp_ssl.cli.table"}


def words_of(node):
    """A message with a blank for each value in it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return words_of(node.left) + words_of(node.right)
    if isinstance(node, ast.Constant):
        return str(node.value)
    return node.id if isinstance(node, ast.Name) else " ".join(words_of(n) for n in ast.iter_child_nodes(node))


def errors_in(tree):
    """(code, message, line) of every error that is made."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) > 1 and ast.unparse(node.func).endswith("Error"):
            code, message = node.args[:2]
            if isinstance(code, ast.Constant) and isinstance(code.value, int):
                yield code.value, words_of(message), node.lineno


def unrelated(by_code, meanings):
    """What is wrong with the codes: raised from several places without a meaning, or with a message of another."""
    for code, messages in sorted(by_code.items()):
        if len(messages) > 1 and code not in meanings:
            yield f"{code} is raised from {len(messages)} places: say in MEANINGS what it means"
        if code in meanings:
            yield from (
                f"{code} ({meanings[code][0]}): {text}" for text in messages if not re.search(meanings[code][1], text)
            )
    yield from (f"{code} is not raised from several places" for code in meanings if len(by_code.get(code, ())) < 2)


@pytest.fixture(scope="module")
def trees():
    return {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def test_one_code_one_meaning(trees):
    by_code = defaultdict(list)
    for tree in trees.values():
        for code, message, _ in errors_in(tree):
            by_code[code].append(message)
    assert len(by_code) > 200 and list(unrelated(by_code, MEANINGS)) == []


def test_the_walker_sees_a_second_meaning():
    tree = ast.parse('raise ConfigError(7, "no column x")\nraise DataError(7, f"{path} exists")\nraise E(8, "a")')
    by_code = {7: [message for _, message, _ in errors_in(tree)]}
    assert list(unrelated(by_code, {})) == ["7 is raised from 2 places: say in MEANINGS what it means"]
    (found,) = unrelated(by_code, {7: ("a column", "no column")})
    assert found.endswith("exists")
    assert list(unrelated({7: ["no column"]}, {7: ("a column", "no column")})) == [
        "7 is not raised from several places"
    ]


def flags_of_commands():
    """Command -> its flags; of commands with a method those of all methods."""
    methods = [flag for method in flag_table()["methods"].values() for flag in method["flags"]]
    found = {}
    for name, entry in flag_table()["commands"].items():
        flags = entry["flags"] + (methods if entry["of_method"] else [])
        names = [flag["name"].replace("_", "-") for flag in flags]
        found[name] = {*(f"--{n}" for n in names), *(f"--no-{n}" for n in names), "--config", "--help", "--help-all"}
    return found


def imports_of(tree):
    """Modules of the project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in FILES else node.module for name in names}
    return found & FILES.keys()


def reached(start, arrows):
    found, todo = {start}, [start]
    while todo:
        todo += (new := arrows[todo.pop()] - found)
        found |= new
    return found


def test_every_flag_in_an_error_is_one_of_a_command_that_can_raise_it(trees):
    arrows, flags = {name: imports_of(tree) for name, tree in trees.items()}, flags_of_commands()
    arrows["nlp_ssl.registry"] |= {*BUILT_IN}  # which it imports by name
    modules = {
        name: reached(f"nlp_ssl.cli.{entry['module']}", arrows) for name, entry in flag_table()["commands"].items()
    }
    wrong = []
    for name, tree in trees.items():
        for _, message, line in errors_in(tree):
            for flag in {*_FLAG.findall(message)} - _OTHER_PROGRAMS:
                having = [command for command in flags if flag in flags[command]]
                if not any(name in modules[command] or f"{command} {flag}" in message for command in having):
                    wrong.append(f"{name}:{line} names {flag}: {message}")
    assert wrong == []


def test_every_flag_in_any_text_is_one_of_some_command(trees):
    known = set().union(*flags_of_commands().values()) | _OTHER_PROGRAMS
    wrong = []
    for name, tree in trees.items():
        for node in ast.walk(tree) if name not in _NOT_WALKED else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                wrong += [
                    f"{name}:{node.lineno} names {flag}" for flag in _FLAG.findall(node.value) if flag not in known
                ]
    assert wrong == []


RAGGED = "text,label\ngood fun,pos\nbad,film,neg\ndull,neg\n"


@pytest.mark.parametrize(
    "command",
    [["predict", "m", "F"], ["augment", "F", "--how", "swap", "--out", "O.parquet"],
     ["pretrain", "F", "--output-dir", "O"], ["select", "F", "--in-domain", "F", "--out", "O.parquet"],
     ["index", "build", "F", "--out", "O"], ["export", "m", "--out", "O", "--texts", "F"],
     ["train", "--labeled", "F", "--output-dir", "O"], ["doctor", "--labeled", "F"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_skipping_bad_lines_is_advised_where_it_can_be_asked_for(command, tmp_path, capsys, monkeypatch):
    from nlp_ssl.inference import predictor

    monkeypatch.chdir(tmp_path)
    (tmp_path / "F.csv").write_text(RAGGED)
    never = predictor.Predictor(("neg", "pos"), lambda texts, second: None)
    monkeypatch.setattr("nlp_ssl.cli.predict.open_predictor", lambda *given, **more: never)
    words = [word.replace("F", "F.csv") if word == "F" else word for word in command]
    assert run(words) != 0
    text = "".join(capsys.readouterr())
    flags = {
        flag["name"]
        for flag in flag_table()["commands"][" ".join(words[:2]) if words[0] == "index" else words[0]]["flags"]
    }
    assert "SSL111" in text and ("--on-bad-lines" in text) == ("on_bad_lines" in flags)
