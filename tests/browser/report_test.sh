#!/usr/bin/env bash
# Opens the HTML report in a headless Chromium and checks its content. Exits with 77, which CTest shows as skipped,
# where there is no Chromium.
# Usage: report_test.sh MHA2MLA MAKE_STATS EXAMPLES
set -euo pipefail
program=$1 make_stats=$2 examples=$3
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$browser" ] || { echo "SKIPPED: no Chromium here; apt-get install chromium"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
# The page's DOM after its scripts ran. The window is tall, so that every layer of a small model is visible. On a busy
# machine Chromium's virtual time may run out before it told the page what is in view: it is opened again until one
# heat map is drawn, at most three times.
dom() {
  local attempt
  for attempt in 1 2 3; do
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --window-size="1280,${2:-9000}" \
      --virtual-time-budget=10000 --dump-dom "file://$1" >"$work/attempt.dom" 2>/dev/null || true
    grep -q 'data-drawn="true"' "$work/attempt.dom" && break
    echo "attempt $attempt at $1 drew nothing" >&2
  done
  cat "$work/attempt.dom"
}
count() { { grep -o -- "$1" "$2" || true; } | wc -l; }
expect_count() {  # WHAT PATTERN FILE NUMBER
  local found; found=$(count "$2" "$3")
  [ "$found" -eq "$4" ] || fail "$1: $found instead of $4"
}

# A hostile model name, statistics to compare with, and a page of every section.
"$make_stats" "$work/a.safetensors" 4 6 3 16 '</script><script>document.title="owned"</script>"><b id=owned>&'
"$program" calibrate "$examples/kjv-1.8M" --text "$examples/kjv-eval.txt" --samples 4 --seq-len 64 \
  -o "$work/b.safetensors" >/dev/null
"$program" report "$work/b.safetensors" --checkpoint "$examples/kjv-1.8M" --compare "$work/a.safetensors" \
  --html "$work/full.html" >/dev/null
"$program" report "$work/a.safetensors" --rope-theta 10000 --compare "$work/b.safetensors" --html "$work/hostile.html" >/dev/null

dom "$work/full.html" >"$work/full.dom"
expect_count "heat maps drawn" 'data-drawn="true"' "$work/full.dom" 4
expect_count "marks of 2-norm" 'class="mark s0"' "$work/full.dom" 4
expect_count "marks of uniform" 'class="mark s3"' "$work/full.dom" 4
expect_count "outlines at the default" 'class="layer" data-layer="[0-9]*" data-drawn="true" data-rope-dim="4"' "$work/full.dom" 4
for figure in kept-by-pair kept-by-layer agreement concentration retained spectrum-joint spectrum-key spectrum-value comparison-plot; do
  grep -q "id=\"$figure\">.*<svg" "$work/full.dom" || fail "figure $figure was not drawn"
done

# At the program's rope-dim the tables of the script equal those of the program.
table() { sed -n "/<table id=\"$1\"/,/<\/table>/p" "$2" | grep -o '<t[dh][^<]*' | sed 's/.*>//'; }
for id in layer-table strategy-table comparison-table; do
  [ "$(table $id "$work/full.html" | wc -l)" -gt 8 ] || fail "$id is empty"
  [ "$(table $id "$work/full.html")" = "$(table $id "$work/full.dom")" ] || fail "$id: the script and the program disagree"
done

# With another rope-dim in the fragment, outlines change, and the tables equal those that the program writes for it.
dom "$work/full.html#rope-dim=8" >"$work/eight.dom"
"$program" report "$work/b.safetensors" --compare "$work/a.safetensors" --rope-dim 8 --html "$work/eight.html" >/dev/null
expect_count "outlines at 8" 'class="layer" data-layer="[0-9]*" data-drawn="true" data-rope-dim="8"' "$work/eight.dom" 4
marks() { grep -o '<path d="[^"]*" class="mark s[0-9]"' "$1"; }
[ "$(marks "$work/full.dom")" != "$(marks "$work/eight.dom")" ] || fail "rope-dim 8 has the outlines of rope-dim 4"
for id in layer-table strategy-table comparison-table; do
  [ "$(table $id "$work/eight.html")" = "$(table $id "$work/eight.dom")" ] || fail "$id at 8: the script and the program disagree"
done
dom "$work/full.html#rope-dim=7" >"$work/odd.dom"
[ "$(marks "$work/full.dom")" = "$(marks "$work/odd.dom")" ] || fail "an odd rope-dim in the fragment was taken"

# Names from files are escaped, and the page makes no network requests.
dom "$work/hostile.html" >"$work/hostile.dom"
expect_count "heat maps of the hostile page" 'data-drawn="true"' "$work/hostile.dom" 4
grep -q 'id="owned"\|<title>owned' "$work/hostile.dom" && fail "a model name became markup"
for page in full hostile; do
  grep -Eqi '(https?|wss?|ftp)://|url\(|@import|<link|<img|src=|fetch\(|XMLHttpRequest' "$work/$page.html" && fail "$page.html points outside itself"
done

# A large model: 32 layers, 32 KV heads, 64 pairs.
"$make_stats" "$work/big.safetensors" 32 32 32 64 big
"$program" report "$work/big.safetensors" --rope-theta 10000 --html "$work/big.html" --csv "$work/big.csv" >/dev/null
bytes=$(stat -c %s "$work/big.html")
[ "$bytes" -lt 5000000 ] || fail "the page of a large model has $bytes bytes"
dom "$work/big.html#layers" 1000 >"$work/big.dom"
drawn=$(count 'data-drawn="true"' "$work/big.dom")
expect_count "layers of the large model" 'class="layer" data-layer="[0-9]' "$work/big.dom" 32
[ "$drawn" -gt 0 ] || fail "no layer in view was drawn"
[ "$drawn" -lt 32 ] || fail "layers out of view were drawn"
echo "large model: $bytes bytes, $drawn of 32 layers drawn at once"

# For every cell, the page shows the numbers of the CSV, to the digits that it shows.
{ cat "$work/big.html"; echo "<script>"; cat "$(dirname "$0")/hover.js"; echo "</script>"; } >"$work/hover.html"
dom "$work/hover.html" 1000 >"$work/hover.dom"
sed -n '/id="hover"/,/<\/pre>/p' "$work/hover.dom" | grep '^[0-9]' >"$work/hover.csv" || true
tail -n +2 "$work/big.csv" | paste -d, - "$work/hover.csv" | awk -F, '
  function differs(a, b) { return a - b > 0.0015 * a || b - a > 0.0015 * a }
  { wrong = NF != 22 || differs($4, $15) || differs($5, $16) || differs($6, $17) || $7 != $18
    for (i = 1; i <= 3; ++i) wrong = wrong || $i != $(i + 11)
    for (i = 8; i <= 11; ++i) wrong = wrong || $i != $(i + 11)
    if (wrong && ++bad <= 5) print "CSV and page: " $0 }
  END { exit bad > 0 || NR != 65536 }' || fail "the page says other numbers than the CSV"
echo "slowest steps of the large model: $(grep -o 'data-slowest="[^"]*"' "$work/hover.dom" | cut -d'"' -f2)"

[ "$failures" -eq 0 ] && echo "all checks passed"
exit $((failures > 0))
