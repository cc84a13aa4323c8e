#!/bin/sh
# Makes the tokens of the cluster, each once: who may do what at which node. Runs in the image of the nodes,
# after secrets.sh. The nodes get hashes only; a token's text is in the volume of whoever shows it.
set -eu
umask 077
root=/secrets

# token NODE PRINCIPAL ROLE FILE
token() {
    [ ! -s "$root/$4" ] || return 0
    slipstream token --tokens "$root/$1/tokens.json" create --principal "$2" --role "$3" > "$root/$4.new"
    mv "$root/$4.new" "$root/$4"
}

for node in leader recent history; do
    token "$node" aaduser=operator AllDatabasesAdmin "operator/$node.token"
    token "$node" aadapp=prometheus AllDatabasesMonitor "metrics/$node.token"
done
token leader aadapp=follower-recent Contributor recent/leader.token
token leader aadapp=follower-history Contributor history/leader.token
echo "tokens: all there"
