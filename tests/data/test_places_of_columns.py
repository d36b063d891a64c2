"""Columns and numbers of labels go by their names, not by where they stand."""

import pytest
from datasets import ClassLabel
from transformers import PreTrainedConfig

from nlp_ssl.data.sources import column_values, read_table
from nlp_ssl.errors import ConfigError, DataError
from nlp_ssl.integrations.hf_data import _check_order


def written(path, *lines):
    path.write_text("\n".join(lines))
    return path


def test_a_column_for_each_label_goes_by_its_name(tmp_path):
    file = written(tmp_path / "l.csv", "text,neg,pos", "bad,1,0", "good,0,1")
    for names in (["neg", "pos"], ["pos", "neg"]):
        for columns in ("neg,pos", "pos,neg"):
            table = read_table(file, label_column=columns, class_names=names, label_lists=True)
            assert table.label_sets == [("neg",), ("pos",)] and table.classes == tuple(names)
    others = read_table(file, label_column="neg,pos", class_names=["a", "b"], label_lists=True)
    assert others.label_sets == [("a",), ("b",)], "by place, where no name is one of the classes"
    for names in (["neg", "other"], ["neg", "pos", "other"], ["a", "b", "c"]):
        with pytest.raises(DataError, match="SSL126"):
            read_table(file, label_column="neg,pos", class_names=names)


@pytest.mark.parametrize("header", ["Text,text,Label,label", "text,TEXT,label,LABEL", "Text,TEXT,Label,LABEL"])
def test_of_columns_that_differ_in_case_the_exact_one_or_the_first(tmp_path, header):
    table = read_table(written(tmp_path / "l.csv", header, *(["a,b,c,d", "e,f,g,h"])))
    exact = header.startswith("Text,text")
    assert table.texts.to_pylist() == (["b", "f"] if exact else ["a", "e"])
    assert table.labels == (["d", "h"] if exact else ["c", "g"])


def test_weights_are_found_whatever_their_case(tmp_path):
    assert column_values(written(tmp_path / "p.csv", "text,label, Weight", "a,b,0", "c,d,1"), "weight") == {
        1: "0",
        2: "1",
    }


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        ("pos neg", True),
        ("Pos Neg", True),
        ("pos x", True),
        ("x neg", True),
        ("neg x", False),
        ("neg pos zero", False),
        ("a b", False),
    ],
)
def test_numbers_of_the_trainer_go_by_the_names_of_the_model(names, refused):
    config = PreTrainedConfig(id2label={0: "neg", 1: "pos"}, label2id={"neg": 0, "pos": 1})
    feature = ClassLabel(names=[f"{name} " for name in names.split()])
    if not refused:
        _check_order(feature, "train_dataset", config)
        return
    with pytest.raises(ConfigError, match="SSL484"):
        _check_order(feature, "train_dataset", config)
