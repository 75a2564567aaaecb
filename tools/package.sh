#!/usr/bin/env bash
# Makes packages in dist/: a wheel, Debian packages and a release archive. Installs what that needs.
# Usage: tools/package.sh [wheel|deb|archive]... [--arch aarch64]   (default: all three, for this machine's processor)
#   wheel    mha2mla-VERSION-py3-none-manylinux...whl: the program, linked statically, and the Python module
#   deb      mha2mla_VERSION.deb and libmha2mla-dev_VERSION.deb for this distribution, with its libraries
#   archive  mha2mla-VERSION-linux-ARCH.tar.gz: the program, linked statically, its documents and examples
# --arch aarch64 builds for ARM on an x86-64 machine: wheel and archive only.
set -euo pipefail
cd "$(dirname "$0")/.."

arch=$(uname -m) kinds=()
while [ $# -gt 0 ]; do
  case $1 in
    wheel | deb | archive) kinds+=("$1") ;;
    --arch) arch=${2:?--arch needs x86_64 or aarch64}; shift ;;
    *) sed -n '2,8s/^# //p' "$0"; [ "$1" = --help ] && exit 0; echo "error: unknown argument: $1" >&2; exit 2 ;;
  esac
  shift
done
case $arch in x86_64 | aarch64) ;; *) echo "error: --arch takes x86_64 or aarch64, not $arch" >&2; exit 2 ;; esac
toolchain=()
if [ "$arch" != "$(uname -m)" ]; then
  [ "$arch" = aarch64 ] || { echo "error: only aarch64 can be built on another processor" >&2; exit 2; }
  toolchain=("-DCMAKE_TOOLCHAIN_FILE=$PWD/cmake/toolchains/aarch64-linux-gnu.cmake")
fi
if [ ${#kinds[@]} -eq 0 ]; then
  kinds=(wheel archive)
  [ ${#toolchain[@]} -gt 0 ] || kinds+=(deb)
fi
if [ ${#toolchain[@]} -gt 0 ] && [[ " ${kinds[*]} " == *" deb "* ]]; then
  echo "error: Debian packages are made on a machine of their processor" >&2
  exit 2
fi

tools/install_packages.sh "package-$arch"
version=$(sed -nE 's/^project\(mha2mla VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)
build=$PWD/build/portable-$arch
libraries=$PWD/build/portable-libraries-$arch
portable=(-DCMAKE_BUILD_TYPE=Release -DMHA2MLA_PORTABLE=ON "-DCMAKE_PREFIX_PATH=$libraries" "${toolchain[@]}")
mkdir -p dist

make_archive() {
  tools/portable_libraries.sh "$libraries" "${toolchain[@]}"
  cmake -G Ninja -S . -B "$build" "${portable[@]}"
  cmake --build "$build" --target mha2mla_program mha2mla_docs
  local name=mha2mla-$version-linux-$arch
  rm -rf "build/$name"
  cmake --install "$build" --component program --prefix "build/$name" --strip
  # The same bytes for the same files: sorted, and of nobody and the time of the last commit.
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
    -C build -c "$name" | gzip -9n >"dist/$name.tar.gz"
  rm -rf "build/$name"
}

make_wheel() {
  tools/portable_libraries.sh "$libraries" "${toolchain[@]}"
  local venv=build/package-venv raw=build/wheels-$arch
  [ -x "$venv/bin/pyproject-build" ] || { python3 -m venv --clear "$venv" && "$venv/bin/pip" install -q build wheel scikit-build-core; }
  rm -rf "$raw"
  local settings=("-Cbuild-dir=$build")
  for define in "${portable[@]}"; do settings+=("-Ccmake.define.${define#-D}"); done
  "$venv/bin/pyproject-build" --wheel --no-isolation --outdir "$raw" "${settings[@]}"
  # Linked statically, the program needs no library of the system: every Linux of the processor family will do.
  local tag=manylinux_2_17_$arch.manylinux2014_$arch.musllinux_1_1_$arch
  "$venv/bin/wheel" tags --remove --platform-tag "$tag" "$raw"/*.whl >/dev/null
  mv "$raw"/*.whl dist/
}

make_deb() {
  cmake --preset release
  cmake --build --preset release
  (cd build/release && cpack -G DEB -B "$PWD/packages")
  mv build/release/packages/*.deb dist/
}

for kind in "${kinds[@]}"; do "make_$kind"; done
ls -l dist
