"""Importing the package is quick and pulls in the heavy libraries only when they are used."""

import subprocess
import sys

import pytest

import nlp_ssl
from nlp_ssl import methods, rounds

SCRIPT = """
import sys, time
import torch
start = time.process_time()
import nlp_ssl
print(time.process_time() - start)
print([m for m in ("faiss", "sentence_transformers", "datasets", "torchvision", "transformers", "sklearn", "scipy")
       if m in sys.modules])
"""


def test_import_is_light():
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.split("\n")
    assert float(out[0]) < 1.0, "beyond torch itself, the import may take a second of processor time"
    assert out[1] == "[]"


@pytest.mark.parametrize("name", nlp_ssl.__all__)
def test_every_public_name_is_there(name):
    assert getattr(nlp_ssl, name) is not None


def test_the_package_itself_imports_nothing_of_it():
    script = "import sys, nlp_ssl, nlp_ssl.config; print([m for m in ('torch', 'numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_names_are_listed():
    assert set(nlp_ssl.__all__) >= {*methods.__all__, *rounds.__all__}
    assert set(dir(nlp_ssl)) >= {*nlp_ssl.__all__, "__version__"}


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        nlp_ssl.no_such_thing  # noqa: B018
