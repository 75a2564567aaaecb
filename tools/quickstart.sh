#!/usr/bin/env bash
# Installs what is needed, builds a release, converts the tiny checkpoint in examples/ and shows what that cost and
# saved. Usage: tools/quickstart.sh [OUTPUT_DIR] (default: out/kjv-1.8M-mla)
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-out/kjv-1.8M-mla}

tools/install_packages.sh
cmake --preset release >/dev/null
cmake --build --preset release
mha2mla=build/release/bin/mha2mla

show() { printf '\n$ %s\n' "$*"; "$@"; }
show "$mha2mla" convert examples/kjv-1.8M "$output" --calibration-text examples/kjv-calibration.txt \
  --overwrite
show "$mha2mla" verify examples/kjv-1.8M "$output" --text examples/kjv-eval.txt --context 256 --max-windows 24
