#!/bin/sh
# Lays out a workspace that has every manifest and nothing to compile but dependencies:
#   manifests.sh DIRECTORY
#
# Its content is the same while no manifest changes, and so is the layer that is built from it.
set -eu
to=$1
mkdir -p "$to"
cp Cargo.toml Cargo.lock "$to/"
cp -R crates tests proto "$to/"
cd "$to"
# What dependencies are built with: a crate that stands in for another, and scripts of builds.
find crates tests -type f ! -name Cargo.toml ! -name build.rs ! -path 'crates/custom-labels/*' |
    while read -r file; do
        case $file in
            */lib.rs | */main.rs | */benches/*.rs) echo 'fn main() {}' > "$file" ;;
            *) rm "$file" ;;
        esac
    done
find . -type d -empty -delete
find . -exec touch -d '2000-01-01 00:00:00' {} +
