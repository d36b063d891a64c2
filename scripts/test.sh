#!/usr/bin/env bash
# Installs what is missing, checks style and types, and runs the whole test suite. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
# Several small processes share the cores: one thread each is faster than many that wait for one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
echo "test: ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
echo "test: mypy"
.venv/bin/mypy
echo "test: pytest"
exec .venv/bin/python -m pytest "$@"
