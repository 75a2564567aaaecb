#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each of them from a few seeds. Fails if one finds a fault; the input that
# shows it is left in build/fuzz/found.
# Usage: tools/fuzz.sh [SECONDS [TARGET...]]   (default: 10 seconds each of all targets)
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(config rank_file safetensors token_file tokenizer)

cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target "${targets[@]/#/fuzz_}"

# The seeds: what lies in tests/fuzz/seeds, and for the larger formats the files of the examples and golden tests.
work=build/fuzz/corpus
rm -rf "$work"
mkdir -p "$work"/{config,rank_file,safetensors,token_file,tokenizer} build/fuzz/found
number=0
for file in examples/*/config.json tests/data/golden/families*/*/config.json; do
  cp "$file" "$work/config/$((number += 1))"
done
cp tests/data/golden/families5/llama-linear-mqa/expected.safetensors "$work/safetensors"
cp examples/*/tokenizer.json "$work/tokenizer"
cp -r tests/fuzz/seeds/. "$work"

for target in "${targets[@]}"; do
  echo "fuzz_$target for $seconds s"
  log=build/fuzz/$target.log
  if ! "build/fuzz/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
      -artifact_prefix=build/fuzz/found/ "$work/$target" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    exit 1
  fi
  tail -n 1 "$log"
done
