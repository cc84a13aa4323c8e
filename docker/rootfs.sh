#!/bin/sh
# Lays out what the image gets besides its base: the program, the one library that a base may lack, the
# authorities that stores in the cloud are trusted by, and time zones, without which a follower's cache keeps
# tables that have times in the slower form:
#   rootfs.sh BINARY DIRECTORY
set -eu
binary=$1
to=$2
library=$(cc -print-file-name=libgcc_s.so.1 2>/dev/null || true)
case $library in
    /*) ;;
    *) library=$(ldd "$binary" | sed -n 's/.*libgcc_s\.so\.1 => \([^ ]*\).*/\1/p') ;;
esac
[ -r "$library" ] || {
    echo "rootfs.sh: cannot find libgcc_s.so.1, which $binary needs: install a C compiler" >&2
    exit 1
}
authorities=/etc/ssl/certs/ca-certificates.crt
[ -r "$authorities" ] || {
    echo "rootfs.sh: there is no $authorities: install ca-certificates" >&2
    exit 1
}
zones=/usr/share/zoneinfo
[ -e "$zones/UTC" ] || {
    echo "rootfs.sh: there is no $zones: install tzdata" >&2
    exit 1
}
command -v strip >/dev/null || { echo "rootfs.sh: there is no strip: install binutils" >&2; exit 1; }
mkdir -p "$to/usr/local/bin" "$to/usr/lib" "$to/etc/ssl/certs" "$to/usr/share"
# Two of the three copies that Debian has are for programs that count leap seconds.
cp -RL "$zones" "$to/usr/share/"
rm -rf "$to/usr/share/zoneinfo/right" "$to/usr/share/zoneinfo/posix"
cp -L "$library" "$to/usr/lib/libgcc_s.so.1"
cp -L "$authorities" "$to/etc/ssl/certs/ca-certificates.crt"
# Names of functions are a seventh of the program, and more with what a debugger wants.
strip -o "$to/usr/local/bin/slipstream" "$binary"
chmod 0755 "$to/usr/local/bin/slipstream"
