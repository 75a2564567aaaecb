#!/usr/bin/env bash
# Makes static libraries of libzip and Highway, which Debian has only as shared ones, from Debian's sources of them.
# Usage: tools/portable_libraries.sh PREFIX [CMAKE_OPTION...]   (installs to PREFIX, if they are not there)
set -euo pipefail
prefix=$(realpath -m "${1:?usage: tools/portable_libraries.sh PREFIX [CMAKE_OPTION...]}")
shift
[ -e "$prefix/complete" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/sources" "$work/lists/partial" "$work/get"
# Debian's archive as this machine knows it, but the sources: into lists of their own, so that the machine's stay as they are.
for list in /etc/apt/sources.list.d/*.sources; do
  [ -e "$list" ] && sed -E 's/^Types:.*/Types: deb-src/' "$list" >"$work/sources/$(basename "$list")"
done
[ -s /etc/apt/sources.list ] && sed -nE 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/sources/main.list"
apt=(apt-get -q -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$work/sources" -o "Dir::State::lists=$work/lists"
     -o "APT::Sandbox::User=root")
"${apt[@]}" update
(cd "$work/get" && "${apt[@]}" source libzip highway)

make_static() {  # SOURCE CMAKE_OPTION...
  cmake -G Ninja -S "$work/get/$1" -B "$work/build-$1" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DBUILD_TESTING=OFF \
    -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_POLICY_VERSION_MINIMUM=3.5 "${@:2}"
  cmake --build "$work/build-$1" --target install
}
cd "$work/get"
make_static libzip-* -DENABLE_BZIP2=OFF -DENABLE_LZMA=OFF -DENABLE_ZSTD=OFF -DENABLE_OPENSSL=OFF -DENABLE_GNUTLS=OFF \
  -DENABLE_MBEDTLS=OFF -DENABLE_COMMONCRYPTO=OFF -DBUILD_TOOLS=OFF -DBUILD_REGRESS=OFF -DBUILD_EXAMPLES=OFF -DBUILD_DOC=OFF "$@"
make_static highway-* -DHWY_ENABLE_CONTRIB=OFF -DHWY_ENABLE_EXAMPLES=OFF -DHWY_ENABLE_TESTS=OFF "$@"
touch "$prefix/complete"
