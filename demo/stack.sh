# What demo/run and tests/docker/run share: questions to the stack of docker-compose.yml. To be sourced, from the
# root of the repository, by bash 3.2 or later.

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    echo "neither 'docker compose' nor 'docker-compose' is installed" >&2
    exit 1
fi
command -v curl >/dev/null || { echo "curl is not installed" >&2; exit 1; }

# How long anything may take that is waited for: a small machine that also does other things.
: "${PATIENCE:=240}"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

container() { "${compose[@]}" ps -q "$1" | head -n 1; }
# Also of containers that have ended: docker compose v2 lists those with --all only.
container_ever() {
    { "${compose[@]}" ps --all -q "$1" 2>/dev/null || "${compose[@]}" ps -q "$1"; } | head -n 1
}
state() { docker inspect --format "$2" "$(container_ever "$1")" 2>/dev/null; }
healthy() { [[ $(state "$1" '{{.State.Health.Status}}') == healthy ]]; }
unhealthy() { [[ $(state "$1" '{{.State.Health.Status}}') == unhealthy ]]; }
running() { [[ $(state "$1" '{{.State.Running}}') == true ]]; }
seeded() { [[ $(state seed '{{.State.Status}} {{.State.ExitCode}}') == "exited 0" ]]; }
project() { docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$(container operator)"; }
network_of() { echo "$(project)_$1"; }

# wait_for WHAT COMMAND...: until it succeeds.
wait_for() {
    local what=$1 until=$((SECONDS + PATIENCE))
    shift
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > until)); then
            printf '   waited %d s in vain: %s\n' "$PATIENCE" "$what" >&2
            return 1
        fi
        sleep 1
    done
}

# The operator's program, at leader, recent or history.
at() { "${compose[@]}" exec -T operator at "$@" </dev/null; }

# The authority and the operator's tokens, to ask from this machine.
read_secrets() {
    local node
    for node in leader recent history; do
        "${compose[@]}" exec -T operator cat "/run/slipstream/$node.token" </dev/null | tr -d '\r\n' > "$scratch/$node.token"
    done
    "${compose[@]}" exec -T operator cat /run/slipstream/ca.pem </dev/null > "$scratch/ca.pem"
}

service_of() { case $1 in leader) echo leader ;; *) echo "follower-$1" ;; esac; }
# Where a node's HTTP is published: what the engine says, as it may be any port.
door() {
    docker port "$(container "$(service_of "$1")")" 7411/tcp | head -n 1
}

# ask NODE SQL PARAMETERS CURL-FLAG...: over HTTPS, from this machine.
ask() {
    local node=$1 sql=$2 parameters=$3
    shift 3
    curl --silent --show-error --noproxy '*' --max-time "$PATIENCE" --cacert "$scratch/ca.pem" \
        --header "authorization: Bearer $(cat "$scratch/$node.token")" --header 'content-type: text/plain' \
        --data-binary "$sql" "$@" "https://$(door "$node")/v1/sql?database=nyc$parameters"
}
# The rows of an answer as CSV, without the names of the columns.
value() { ask "$1" "$2" "${3:-}" --fail --header 'accept: text/csv' | tail -n +2 | tr -d '\r'; }
header_of() {
    ask "$1" 'SELECT 1' '' --fail --output /dev/null --dump-header - | tr -d '\r' | sed -n "s/^$2: //p"
}
version() { header_of "$1" slipstream-version; }
same_version() { [[ $(version "$1") -ge $(version leader) ]]; }
has_version() { [[ $(version "$1") -ge $2 ]]; }
same_digest() {
    local leader recent history
    leader=$(header_of leader slipstream-digest) recent=$(header_of recent slipstream-digest)
    history=$(header_of history slipstream-digest)
    [[ -n $leader && $leader == "$recent" && $leader == "$history" ]]
}
same_rows() {
    local leader
    leader=$(value leader 'SELECT count(*) FROM live')
    [[ $(value recent 'SELECT count(*) FROM live') == "$leader" && $(value history 'SELECT count(*) FROM live') == "$leader" ]]
}
gone() { ! value "$1" 'SELECT 1' 2>/dev/null; }
statistics() { ask "$1" "$2" '&statistics=true' --fail --header 'accept: application/json'; }
# A number of the statistics that a node's file in scratch holds: the sum over all tables stands first.
stat() { grep -o "\"$2\":[0-9]*" "$scratch/$1.stat" | head -n 1 | cut -d: -f2; }
resident() {
    at "$1" sql --format csv '.show cache' | tr -d '\r' | awk -F, '$1 == "nyc" && $2 == "flights" { print $5 }'
}

# Milliseconds since some moment. bash 3.2 and BSD's date know only seconds.
now_ms() {
    local nanoseconds
    nanoseconds=$(date +%s%N)
    case $nanoseconds in *N) echo $((${nanoseconds%N} * 1000)) ;; *) echo $((nanoseconds / 1000000)) ;; esac
}
# Commits at the leader; the version that it made.
insert() { ask leader "$1" '' --fail --output /dev/null --dump-header - | tr -d '\r' | sed -n 's/^slipstream-version: //p'; }
# How long a node took to answer from that version, in milliseconds.
delay() {
    ask "$1" "$3" "&min_version=$2" --fail --output /dev/null --write-out '%{time_total}' | awk '{ printf "%.1f", $1 * 1000 }'
}

# Starts a leader that has only the keys of another service, where that service is.
try_writing_as() {
    "${compose[@]}" exec -T -e SLIPSTREAM_CLUSTER=intruder -e SLIPSTREAM_HTTP=127.0.0.1:17411 -e SLIPSTREAM_GRPC=127.0.0.1:17410 \
        -e SLIPSTREAM_DATA_DIR=/tmp/intruder "$1" timeout 60 slipstream-entrypoint leader </dev/null
}
