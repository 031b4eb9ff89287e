#!/bin/sh
# The reference build: look at the machine, say what will be built, build it, audited, into $1 (default: dist).
# Packages may be named after the folder; all three are built otherwise.
set -eu
out=${1:-dist}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- flash-attn flash-attn-3 sageattention

attnforge doctor
attnforge plan "$@" --target reference --explain
exec attnforge build "$@" --target reference --out "$out" --plain
