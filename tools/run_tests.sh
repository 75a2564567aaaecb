#!/usr/bin/env bash
# Installs what is needed, builds everything with warnings as errors and runs all tests.
# Usage: tools/run_tests.sh [PRESET] (default: dev; also clang, asan, tsan)
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-dev}

tools/install_packages.sh tests
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset" --parallel "$(nproc)"
