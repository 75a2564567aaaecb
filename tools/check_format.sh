#!/usr/bin/env bash
# Fails if clang-format would change any file. With --fix: changes them.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(--dry-run -Werror)
[ "${1:-}" = --fix ] && mode=(-i)
git ls-files -z '*.cpp' '*.hpp' | xargs -0 clang-format "${mode[@]}"
