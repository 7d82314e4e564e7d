#!/usr/bin/env bash
# A producer, a worker and an operator in nothing but curl, against a running server:
#
#   spillway serve                              with a flow "orders" that has no `deliver`
#   SPILLWAY_URL=http://127.0.0.1:7411 examples/curl.sh
#
# SPILLWAY_FLOW names another flow; SPILLWAY_TOKEN is sent along where the server has tokens. It takes what it
# sent, and nothing else is in the flow when it begins.
set -euo pipefail
url=${SPILLWAY_URL:-http://127.0.0.1:7411}
flow=${SPILLWAY_FLOW:-orders}
api=$url/v1/flows/$flow

# Prints the answer's body, then its status on a line of its own. A token is not for the list of processes.
call() {
  curl --silent --show-error --write-out '\n%{http_code}\n' "$@" \
    --config <(echo "${SPILLWAY_TOKEN:+header = \"authorization: Bearer $SPILLWAY_TOKEN\"}")
}
# expect STATUS WHAT ANSWER: says what was proved, or what came instead.
expect() {
  if [ "$(tail -n 1 <<<"$3")" = "$1" ]; then
    echo "$1  $2"
  else
    printf 'expected %s: %s\n%s\n' "$1" "$2" "$3" >&2
    exit 1
  fi
}
# field NAME ANSWER: the text of that name in the JSON.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$2" | head -n 1; }

key=order-$(date +%s)-$$
order() {
  call "$api/messages" -H 'content-type: application/json' -H "idempotency-key: $key" \
    -H 'spillway-key: customer-7' -d '{"total":12}'
}
first=$(order)
expect 202 "accepted: it is durable, $(field id "$first")" "$first"
again=$(order)
expect 200 "sent again under the same idempotency key: the first one's receipt, $(field id "$again")" "$again"
[ "$(field id "$first")" = "$(field id "$again")" ]
expect 422 "the same key with other content is refused" "$(call "$api/messages" \
  -H "idempotency-key: $key" -H 'spillway-key: customer-7' -d '{"total":13}')"

batch=$(printf '%s\n' '{"payload":{"total":1}}' '{"class":"best","text":"not a class"}' '{"text":"hello"}' |
  call "$api/messages:batch" -H 'content-type: application/x-ndjson' --data-binary @-)
expect 200 "a batch: $(grep -c '"accepted":true' <<<"$batch") of 3 lines accepted, and each line says so" "$batch"

left=3
while [ "$left" -gt 0 ]; do
  pulled=$(call "$api/deliveries" -H 'content-type: application/json' -d '{"max":1,"waitMs":5000}')
  expect 200 "pulled $(field messageId "$pulled")" "$pulled"
  delivery=$(field id "$pulled")
  if [ "$left" = 3 ]; then
    why=$(call "$api/messages/$(field messageId "$pulled" | cut -d/ -f2-)")
    expect 200 "where it is, and why: $(field state "$why"), $(field reason "$why")" "$why"
  fi
  expect 204 "acked, once that is durable" "$(call -X POST "$url/v1/deliveries/$delivery:ack")"
  left=$((left - 1))
done
expect 409 "a second ack counts for nothing" "$(call -X POST "$url/v1/deliveries/$delivery:ack")"

state=$(call "$api")
expect 200 "the flow has $(grep -o '"acked":[0-9]*' <<<"$state" | head -n 1)" "$state"
grep -q '"depth":0,' <<<"$state" && echo "     and nothing is left in it"
