#!/usr/bin/env bash
# Installs what is missing, checks style and types, and runs the tests: those that are not marked slow, or with --all as
# the first argument every test. Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
part="not slow"
if [ "${1:-}" = --all ]; then
    part="" # of the marks: no choice
    shift
fi
bash scripts/install.sh
# Several small processes share the cores: one thread each is faster than many that wait for one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
# Back-translation is tested with the real Apertium and the report in a real browser: both are installed where this user
# may, else these tests are skipped and say so.
wanted=()
command -v apertium > /dev/null || wanted+=(apertium apertium-eng-spa)
command -v chromium > /dev/null || wanted+=(chromium)
if [ ${#wanted[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "test: installing ${wanted[*]}"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${wanted[@]}"; } > /dev/null 2>&1 ||
        echo "test: ${wanted[*]} could not be installed"
fi
echo "test: ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
echo "test: mypy"
.venv/bin/mypy
echo "test: pytest"
exec .venv/bin/python -m pytest -n 2 --dist loadscope -m "$part" "$@"
