#!/bin/sh
# The reference build: check the machine, show what will be built, build and audit it into $1 (default: dist).
# Name packages after the folder to build only these; the default is all three.
set -eu
out=${1:-dist}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- flash-attn flash-attn-3 sageattention

attnforge doctor
attnforge plan "$@" --target reference --explain
exec attnforge build "$@" --target reference --out "$out" --plain
