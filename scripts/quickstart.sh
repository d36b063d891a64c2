#!/usr/bin/env bash
# From a fresh clone to a trained classifier: installs into .venv, then compares UDA with training on the labels alone
# on the bundled movie reviews. Arguments go to the recipe, e.g. --seeds 1 or --resume.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/install.sh
echo "quickstart: accelerate launch recipes/uda_imdb.py $*"
if [ $# -eq 0 ]; then set -- --overwrite; fi
exec .venv/bin/accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    --num_cpu_threads_per_process "$(getconf _NPROCESSORS_ONLN)" \
    recipes/uda_imdb.py "$@"
