#!/bin/sh
# Starts slipstream in a container, with two things done first:
#
# * NAME_FILE=PATH sets NAME to what stands in the file, for what is secret and can only be said in the
#   environment: AWS_SECRET_ACCESS_KEY_FILE, SLIPSTREAM_LEADER_TOKEN_FILE...
# * A name instead of an address in SLIPSTREAM_HTTP and SLIPSTREAM_GRPC is looked up: a container in
#   several networks listens in one of them by the name that it has only there.
set -eu

fail() {
    echo "error: $1" >&2
    exit 1
}

for name in $(env | sed -n 's/^\([A-Z][A-Z0-9_]*\)_FILE=.*/\1/p'); do
    # These are names of settings, and mean a file.
    case $name in SSL_CERT | AWS_WEB_IDENTITY_TOKEN | AWS_SHARED_CREDENTIALS | AWS_CONFIG | AZURE_FEDERATED_TOKEN)
        continue ;;
    esac
    eval "path=\$${name}_FILE"
    [ -n "$path" ] || continue
    [ -e "$path" ] || fail "${name}_FILE names $path, which is not there: mount the secret, or see whether what makes it has ended well (docker-compose logs secrets tokens)"
    [ -r "$path" ] || fail "${name}_FILE names $path, which user $(id -u) may not read: its owner should be $(id -u)"
    value=$(cat "$path")
    [ -n "$value" ] || fail "${name}_FILE names $path, which is empty"
    export "$name=$value"
    unset "${name}_FILE"
done

# The address of a name, by whichever program the image has for that.
address_of() {
    if command -v getent >/dev/null; then
        getent ahostsv4 "$1" | sed -n '1s/ .*//p'
    else
        nslookup "$1" 2>/dev/null | sed -n '/^Name:/,$s/^Address[^:]*: *\([0-9.]*\)$/\1/p' | sed -n 1p
    fi
}

for name in SLIPSTREAM_HTTP SLIPSTREAM_GRPC; do
    eval "value=\${$name:-}"
    host=${value%:*}
    case $host in
        '' | *[!A-Za-z0-9._-]*) continue ;; # nothing said, or IPv6
        *[A-Za-z]*) ;;
        *) continue ;;
    esac
    address=$(address_of "$host")
    [ -n "$address" ] || fail "$name=$value: no network of this container knows the name '$host'"
    export "$name=$address:${value##*:}"
done

# `docker run slipstream sh` and the like.
case ${1:-} in
    sh | /*) exec "$@" ;;
esac
exec slipstream "$@"
