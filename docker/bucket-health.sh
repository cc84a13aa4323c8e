#!/bin/sh
# Whether the bucket is there and answers, with whatever the image has to ask with.
set -eu
[ -e /tmp/ready ]
url=https://localhost:8333/healthz
if command -v curl >/dev/null; then
    exec curl --silent --fail --output /dev/null --cacert /run/bucket/ca.pem "$url"
fi
exec wget -q -O /dev/null --no-check-certificate "$url"
