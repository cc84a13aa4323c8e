#!/bin/sh
# slipstream against a node of docker-compose.yml, as its operator:
#   docker-compose exec operator at leader sql -d nyc "SELECT count(*) FROM flights"
#   docker-compose exec operator at recent show databases
set -eu
node=${1:-}
case $node in
    leader) SLIPSTREAM_URL=https://leader-door:7411 ;;
    recent | history) SLIPSTREAM_URL=https://follower-$node:7411 ;;
    *)
        echo "usage: at leader|recent|history COMMAND...   (slipstream's commands: see slipstream --help)" >&2
        exit 2
        ;;
esac
shift
SLIPSTREAM_TOKEN=$(cat "/run/slipstream/$node.token")
SLIPSTREAM_CA=/run/slipstream/ca.pem
export SLIPSTREAM_URL SLIPSTREAM_TOKEN SLIPSTREAM_CA
exec slipstream "$@"
