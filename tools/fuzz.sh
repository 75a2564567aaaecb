#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each of them from a few seeds. Fails if one finds a fault; the input that
# shows it is left in build/fuzz/found.
# Usage: tools/fuzz.sh [SECONDS [TARGET...]]   (default: 10 seconds each of all targets)
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(config gguf journal json_lines rank_file recipe record safetensors statistics text
                                       token_file tokenizer)

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target "${targets[@]/#/fuzz_}"

# The seeds are those of the tests (tests/fuzz/CMakeLists.txt).
work=build/fuzz/corpus
rm -rf "$work"
mkdir -p build/fuzz/found
for target in "${targets[@]}"; do
  mkdir -p "$work/$target"
  number=0
  while read -r file; do
    cp "$file" "$work/$target/$((number += 1))"
  done <"build/fuzz/tests/fuzz/seeds_$target.txt"
done

# One target on each processor.
run() {
  local log=build/fuzz/$1.log
  if ! "build/fuzz/tests/fuzz/fuzz_$1" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
      -artifact_prefix=build/fuzz/found/ "$work/$1" >"$log" 2>&1; then
    { echo "fuzz_$1 found a fault:" && tail -n 60 "$log"; } >&2
    return 1
  fi
  echo "fuzz_$1: $(tail -n 1 "$log")"
}
export -f run
export seconds work
printf '%s\0' "${targets[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'run "$0"'
