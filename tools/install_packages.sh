#!/usr/bin/env bash
# Installs the Debian packages that the build needs. With "tests": also those of the tests and benchmarks.
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config libeigen3-dev nlohmann-json3-dev libcli11-dev libspdlog-dev
          libopenblas-dev liblapacke-dev libpcre2-dev libutf8proc-dev libzip-dev zlib1g-dev libzstd-dev
          libxxhash-dev libhwy-dev)
if [ "${1:-}" = tests ]; then
  packages+=(libgtest-dev libbenchmark-dev clang clang-format clang-tidy libomp-dev libclang-rt-14-dev
             ccache chromium fish fonts-dejavu-core groff-base mandoc python3-venv zsh)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -q
"${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
