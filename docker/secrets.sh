#!/bin/sh
# Makes what the containers of docker-compose.yml know each other by: an authority and certificates, and
# keys of the bucket. Nothing is a default, nothing leaves these volumes. What is there already stays, and
# certificates that end within a month are made anew, so this runs at every start.
#
# Each container sees its own volume only: a follower has neither the leader's keys nor the authority's.
set -eu
umask 077
root=${1:-/secrets}
owner=10001:10001
month=2592000

say() { echo "secrets: $*"; }

# A file that is there is whole: written beside itself first.
write() {
    cat > "$1.new"
    mv "$1.new" "$1"
}

random() { openssl rand -hex "$1"; }

authority=$root/authority
if [ ! -s "$authority/ca.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -subj '/O=Slipstream/CN=Slipstream authority of this installation' \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -keyout "$authority/ca.key" -out "$authority/ca.pem.new" 2>/dev/null
    mv "$authority/ca.pem.new" "$authority/ca.pem"
    say "made an authority"
fi

# certificate FILE NAMES USAGE: signed by the authority, for FILE.pem and FILE.key.
certificate() {
    if [ -s "$1.pem" ] && openssl x509 -in "$1.pem" -noout -checkend $month >/dev/null &&
        openssl verify -CAfile "$authority/ca.pem" "$1.pem" >/dev/null 2>&1; then
        return
    fi
    first=${2%%,*}
    names=$(echo "$2" | sed 's/\([^,]*\)/DNS:\1/g')
    [ "$3" = clientAuth ] || names="$names,IP:127.0.0.1"
    printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n' "$names" "$3" > "$1.ext"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Slipstream/CN=$first" \
        -keyout "$1.key" -out "$1.csr" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA "$authority/ca.pem" -CAkey "$authority/ca.key" \
        -set_serial "0x$(random 16)" -days 365 -extfile "$1.ext" -out "$1.pem.new" 2>/dev/null
    mv "$1.pem.new" "$1.pem"
    rm "$1.csr" "$1.ext"
    say "made a certificate for $2 ($3)"
}

for who in bucket leader recent history operator metrics; do
    cp "$authority/ca.pem" "$root/$who/ca.pem"
done
certificate "$root/bucket/server" bucket,bucket-owner,localhost serverAuth
certificate "$root/leader/server" leader,leader-door,localhost serverAuth
for who in recent history; do
    certificate "$root/$who/server" "follower-$who,localhost" serverAuth
    certificate "$root/$who/client" "follower-$who" clientAuth
done

# SeaweedFS configures itself over gRPC, on a port that stands beside S3's: only itself may call there, by
# an authority that nobody else has.
if [ ! -s "$root/bucket/inner.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=seaweedfs' \
        -addext 'subjectAltName=DNS:localhost,DNS:bucket,IP:127.0.0.1' \
        -keyout "$root/bucket/inner.key" -out "$root/bucket/inner.pem.new" 2>/dev/null
    mv "$root/bucket/inner.pem.new" "$root/bucket/inner.pem"
fi

for who in leader recent history; do
    [ -s "$root/$who/s3-access-key" ] || random 10 | write "$root/$who/s3-access-key"
    [ -s "$root/$who/s3-secret-key" ] || random 20 | write "$root/$who/s3-secret-key"
done

# identity WHO ACTIONS: what SeaweedFS lets it do, in this bucket only.
identity() {
    printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}' \
        "$1" "$(cat "$root/$1/s3-access-key")" "$(cat "$root/$1/s3-secret-key")" "$2"
}
bucket=${BUCKET_NAME:-slipstream}
write "$root/bucket/s3.json" <<END
{"identities": [
  $(identity leader "\"Read:$bucket\", \"Write:$bucket\", \"List:$bucket\""),
  $(identity recent "\"Read:$bucket\""),
  $(identity history "\"Read:$bucket\"")
]}
END

for who in bucket leader recent history operator metrics; do
    chown -R "$owner" "$root/$who"
done
# The bucket's own files, which SeaweedFS writes as the same user.
[ ! -d "$root/bucket-data" ] || chown "$owner" "$root/bucket-data"
say "all there"
