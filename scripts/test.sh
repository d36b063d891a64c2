#!/usr/bin/env bash
# Installs what is missing, checks style and types, and runs the whole test suite. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
# Several small processes share the cores: one thread each is faster than many that wait for one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
# The back-translation tests use the real Apertium: installed where this user may, else they are skipped and say so.
if ! command -v apertium > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "test: installing apertium"
    { apt-get update -qq && apt-get install -y -qq apertium apertium-eng-spa; } > /dev/null 2>&1 ||
        echo "test: apertium could not be installed"
fi
echo "test: ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
echo "test: mypy"
.venv/bin/mypy
echo "test: pytest"
exec .venv/bin/python -m pytest "$@"
