#!/usr/bin/env bash
# Installs the packages in dist/ where nothing else is, and runs the quick start's conversion and its check there. Needs root for all but the wheel.
# Usage: tools/test_packages.sh [wheel|archive|deb|baseline|arm]...   (default: all whose packages are in dist/)
#   wheel     in a new Python environment, without a compiler on PATH; with the Python of the tests, if it is there, also in transformers
#   archive   in bare systems of several Debian releases, made by debootstrap: in a container, a privileged one
#   deb       in a bare system of this release, by apt
#   baseline  the archive's program on an emulated x86-64 processor without AVX
#   arm       the ARM archive's program on emulated processors
set -euo pipefail
cd "$(dirname "$0")/.."
[ "${1:-}" != --help ] || { sed -n '2,8s/^# //p' "$0"; exit 0; }
work=$(mktemp -d)
mounted=()
cleanup() {
  for place in "${mounted[@]}"; do umount "$place"; done
  rm -rf "$work"
}
trap cleanup EXIT
machine=$(uname -m)
version=$(sed -nE 's/^project\(mha2mla VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)
root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# check DIRECTORY COMMAND...: COMMAND runs the program where DIRECTORY, which has the examples, is /check.
check() {
  local directory=$1
  shift
  "$@" --version
  "$@" convert "$directory/examples/kjv-1.8M" "$directory/out" --calibration-text "$directory/examples/kjv-calibration.txt" -q
  "$@" verify "$directory/examples/kjv-1.8M" "$directory/out" --text "$directory/examples/kjv-eval.txt" --context 256 \
    --max-windows 24 --max-kl 0.05
}

# bare RELEASE: prints the path of a system that has nothing but what Debian calls required.
bare() {
  local system=$work/$1
  command -v debootstrap >/dev/null || { root apt-get update -q; root apt-get install -y -q --no-install-recommends debootstrap; } >&2
  root debootstrap --variant=minbase "$1" "$system" >"$work/debootstrap.log" || { tail -n 5 "$work/debootstrap.log" >&2; return 1; }
  root mkdir "$system/check"
  root cp -r examples "$system/check"
  echo "$system"
}
enter() {  # SYSTEM COMMAND...: with /proc, where the program learns of its memory and processors
  local system=$1
  shift
  if [ ! -e "$system/proc/self" ] && root mount -t proc proc "$system/proc"; then mounted+=("$system/proc"); fi
  root chroot "$system" env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"
}

test_wheel() {
  local venv=$work/venv python
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-index dist/mha2mla-"$version"-py3-none-*"$machine"*.whl
  cp -r examples "$work"
  check "$work" env -i PATH="$venv/bin" mha2mla
  env -i PATH="$venv/bin" python tests/packages/module_test.py examples/kjv-1.8M
  if python=${MHA2MLA_CACHE:-$PWD/build}/venv/bin/python && [ -x "$python" ]; then
    "$venv/bin/mha2mla" convert examples/kjv-1.8M "$work/per-head" --method mha2mla --rope uniform -q
    PYTHONPATH=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
      "$python" tests/packages/transformers_test.py "$work/per-head"
  else
    echo "note: no Python of the tests (tools/test_venv.sh), so the classes for transformers were not tried"
  fi
}

test_archive() {
  local release system tried=0
  for release in bookworm trixie; do
    system=$(bare "$release") || { echo "note: no $release to be had, so it was not tried"; continue; }
    tried=$((tried + 1))
    root tar -xf "dist/mha2mla-$version-linux-$machine.tar.gz" --strip-components=1 -C "$system/usr/local"
    check /check enter "$system" mha2mla
  done
  [ "$tried" -gt 0 ] || { echo "error: no bare system could be made" >&2; exit 1; }
}

test_deb() {
  local system release
  release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  system=$(bare "$release")
  # The mirror of this machine, with its updates, in which packages were built.
  root cp -r /etc/apt/sources.list.d "$system/etc/apt/"
  root cp dist/*.deb "$system/check"
  enter "$system" sh -c "apt-get -q update && apt-get -q install -y --no-install-recommends /check/mha2mla_*.deb"
  check /check enter "$system" mha2mla
  enter "$system" test -e /usr/share/man/man1/mha2mla-convert.1.gz -a -e /usr/share/bash-completion/completions/mha2mla
  # The library: a program finds it, compiles and runs.
  enter "$system" sh -c "apt-get -q install -y --no-install-recommends g++ cmake make /check/libmha2mla-dev_*.deb"
  root cp -r tests/packages/library "$system/check"
  enter "$system" sh -c "cmake -S /check/library -B /check/built && cmake --build /check/built && /check/built/example /check/examples/kjv-1.8M"
}

# emulated ARCHITECTURE EMULATOR...: a conversion that loses nothing, and the NLL that transformers measures. The variables are those for which
# the program would start itself again, outside the emulator; the library that multiplies matrices chooses for the emulated processor.
emulated() {
  local place=$work/$1 nll
  rm -rf "$place"
  mkdir "$place"
  tar -xf "dist/mha2mla-$version-linux-$1.tar.gz" --strip-components=1 -C "$place"
  shift
  local program=(env -u OPENBLAS_CORETYPE GOMP_SPINCOUNT=1000 OPENBLAS_NUM_THREADS=1 "$@" "$place/bin/mha2mla")
  local text=(--text examples/kjv-eval.txt --context 64 --max-windows 1)
  "${program[@]}" --version
  "${program[@]}" convert examples/kjv-1.8M "$place/out" --method transmla-v1-identity \
    --calibration-text examples/kjv-calibration.txt --samples 2 --seq-len 64 -q
  "${program[@]}" verify examples/kjv-1.8M "$place/out" "${text[@]}" --max-kl 1e-4
  nll=$("${program[@]}" eval examples/kjv-1.8M "${text[@]}" --json | sed -nE 's/.*"nll": *([0-9.]+).*/\1/p')
  python3 -c "assert abs($nll - 2.732862) < 1e-4, $nll"
}
# With SSSE3, and with SSE2 alone.
test_baseline() {
  emulated x86_64 qemu-x86_64-static -cpu core2duo
  emulated x86_64 qemu-x86_64-static -cpu qemu64,+3dnow,+3dnowext
}
# With NEON alone, and with SVE2.
test_arm() {
  emulated aarch64 qemu-aarch64-static -cpu cortex-a72
  emulated aarch64 qemu-aarch64-static -cpu max
}

kinds=("$@")
if [ ${#kinds[@]} -eq 0 ]; then
  for kind in wheel:"*$machine*.whl" archive:"*linux-$machine*" deb:"*.deb" baseline:"*linux-x86_64*" arm:"*linux-aarch64*"; do
    [ -z "$(find dist -name "${kind#*:}" 2>/dev/null)" ] || kinds+=("${kind%%:*}")
  done
fi
[ ${#kinds[@]} -gt 0 ] || { echo "error: no packages in dist/; make some with tools/package.sh" >&2; exit 1; }
for kind in "${kinds[@]}"; do
  case $kind in wheel | archive | deb | baseline | arm) ;; *) echo "error: unknown kind of package: $kind" >&2; exit 2 ;; esac
  case $kind in baseline | arm) command -v qemu-aarch64-static >/dev/null || root apt-get install -y -q qemu-user-static ;; esac
  echo "== $kind"
  "test_$kind"
done
echo "== all as expected: ${kinds[*]}"
