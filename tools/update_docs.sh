#!/usr/bin/env bash
# Brings the generated part of docs/commands/*.md up to date with the program's options; a test fails where it is not.
# Usage: tools/update_docs.sh [PROGRAM] (default: build/release/bin/mha2mla)
set -euo pipefail
cd "$(dirname "$0")/.."
"${1:-build/release/bin/mha2mla}" generate-docs --pages docs/commands
