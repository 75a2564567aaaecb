#!/usr/bin/env bash
# Longer tests of what interruptions and failures leave: random sequences of conversions into one destination.
#   tools/soak.sh [MINUTES [PRESET]]    default: 20 minutes, dev. Each round has another seed, which a failure prints.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-20} preset=${2:-dev}
cmake --preset "$preset" >/dev/null
cmake --build "build/$preset" --target publishing_tests
end=$((SECONDS + minutes * 60))
seed=$(date +%s)
rounds=0
export OMP_NUM_THREADS=1
while [ $SECONDS -lt $end ]; do
  seed=$((seed + 1))
  log=$(MHA2MLA_SEED=$seed MHA2MLA_COMMANDS=2000 "build/$preset/tests/publishing_tests" --gtest_filter='Sequence.*') || {
    echo "$log"
    echo "failed: MHA2MLA_SEED=$seed MHA2MLA_COMMANDS=2000 build/$preset/tests/publishing_tests --gtest_filter='Sequence.*'"
    exit 1
  }
  rounds=$((rounds + 1))
done
echo "$rounds sequences of 2000 commands passed"
