#!/usr/bin/env bash
# Installs the Debian packages that the build needs. With "tests": also those of the tests and benchmarks. With "package-ARCH": also those
# of tools/package.sh for that processor, and of tests of another one than this machine's.
set -euo pipefail

libraries=(libeigen3-dev nlohmann-json3-dev libcli11-dev libspdlog-dev libopenblas-dev liblapacke-dev libpcre2-dev
           libutf8proc-dev libzip-dev zlib1g-dev libzstd-dev libxxhash-dev libhwy-dev)
packages=(g++ cmake ninja-build pkg-config "${libraries[@]}")
case ${1:-} in
  tests)
    packages+=(libgtest-dev libbenchmark-dev clang clang-format clang-tidy libomp-dev libclang-rt-14-dev
               ccache chromium fish fonts-dejavu-core groff-base mandoc python3-venv zsh)
    ;;
  package-*)
    # libopenblas.a needs the Fortran library, which comes with the compiler.
    packages+=(git file dpkg-dev python3-venv)
    if [ "${1#package-}" = "$(uname -m)" ]; then
      packages+=(gfortran)
    else
      packages+=(g++-aarch64-linux-gnu gfortran-aarch64-linux-gnu qemu-user-static)
      for library in "${libraries[@]}" libgtest-dev libbenchmark-dev libgomp1 libstdc++6; do packages+=("$library:arm64"); done
    fi
    ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
export DEBIAN_FRONTEND=noninteractive
[[ "${missing[*]}" != *:arm64* ]] || "${sudo[@]}" dpkg --add-architecture arm64
"${sudo[@]}" apt-get update -q
"${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
