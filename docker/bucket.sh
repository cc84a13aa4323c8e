#!/bin/sh
# Runs SeaweedFS as one S3 server with one bucket. Only S3 can be reached from other containers: the rest of
# it listens on loopback, where nobody asks for credentials.
set -eu
name=${BUCKET_NAME:-slipstream}
here=/run/bucket
ready=/tmp/ready
rm -f "$ready"

[ -r $here/s3.json ] || {
    echo "error: $here/s3.json is not there, so nobody could be told from anybody: see docker-compose logs secrets" >&2
    exit 1
}
# The gRPC port beside S3's takes identities from whoever may call: only those with this key. All parts talk
# to each other that way, or none.
export WEED_GRPC_CA=$here/inner.pem
for part in MASTER VOLUME FILER S3 CLIENT; do
    export "WEED_GRPC_${part}_CERT=$here/inner.pem" "WEED_GRPC_${part}_KEY=$here/inner.key"
done

weed -logtostderr=true server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.telemetry=false -master.volumeSizeLimitMB=1024 -volume.max=0 \
    -filer -filer.localSocket=/tmp/filer.sock \
    -s3 -s3.ip.bind=0.0.0.0 -s3.port=8333 -s3.localSocket=/tmp/s3.sock -s3.config=$here/s3.json \
    -s3.cert.file=$here/server.pem -s3.key.file=$here/server.key \
    -s3.iam=false -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0 &
server=$!
trap 'kill -TERM $server' TERM INT

# The bucket, once: identities may use it, none may make one.
until
    echo "s3.bucket.list" | timeout 20 weed shell -master=127.0.0.1:9333 2>/dev/null | grep -q "^ *$name[[:space:]]" && break
    echo "s3.bucket.create -name $name" | timeout 20 weed shell -master=127.0.0.1:9333 2>/dev/null | grep -q "created bucket"
do
    kill -0 $server 2>/dev/null || break
    sleep 1
done
touch "$ready"

# A signal ends the first wait; the second is for the server's own end.
wait $server || wait $server || exit $?
