#!/usr/bin/env bash
# Makes the Python environment of the tests (PyTorch for the processor, transformers, tokenizers, llama.cpp) if it is not there,
# and prints the path of its python. It lies in build/venv, or in $MHA2MLA_CACHE/venv.
# Usage: tools/test_venv.sh
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${MHA2MLA_CACHE:-$PWD/build}/venv
requirements=(torch==2.13.0 "transformers>=5.24" tokenizers numpy safetensors accelerate gguf==0.19.0 xllamacpp==2026.10.11549)

# The list of what was installed is written last, so that an interrupted installation is done again.
if [ "$(cat "$venv/requirements" 2>/dev/null)" != "${requirements[*]}" ]; then
  mkdir -p "$venv"
  python3 -m venv --clear "$venv" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}" >&2
  echo "${requirements[*]}" >"$venv/requirements"
fi
echo "$venv/bin/python"
