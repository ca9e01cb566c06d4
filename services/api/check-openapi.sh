#!/usr/bin/env bash
# Judges /openapi.json and the service behind it: Spectral reads the document, schemathesis sends what it allows and what it forbids, with
# three seeds. It writes users and events, so give it a stack of its own:
#   ./testbed up --law none --users 500 --workers 0        then   services/api/check-openapi.sh URL-OF-THE-GATEWAY
# Installs both tools into a scratch directory, unless they are on PATH. Needs python3 with venv, node and npm.
#
# All checks of schemathesis are on. JSON Schema cannot say two of our rules, so a hook leaves out the requests that only these refuse:
# an id has at most 64 bytes (`maxLength` counts characters), and a timestamp is at most five minutes ahead of the server's clock.
# The service's own tests cover both.
set -euo pipefail
url=${1:?usage: check-openapi.sh URL, e.g. http://127.0.0.1:8080}
url=${url%/}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

if ! command -v schemathesis >/dev/null; then
  python3 -m venv venv
  venv/bin/pip install --quiet --disable-pip-version-check schemathesis==4.32.5
  PATH=$work/venv/bin:$PATH
fi
if ! command -v spectral >/dev/null; then
  npm init -y >/dev/null
  npm install --silent --no-audit --no-fund @stoplight/spectral-cli@6.16.3
  PATH=$work/node_modules/.bin:$PATH
fi

curl --fail --silent --show-error "$url/openapi.json" --output openapi.json
echo 'extends: ["spectral:oas"]' >ruleset.yaml
spectral lint --ruleset ruleset.yaml --fail-severity error openapi.json

cat >beyond_json_schema.py <<'PY'
import time

import schemathesis

AHEAD_S = 240  # less than five minutes: the request arrives later than it is made


def events_of(body):
    found = body if isinstance(body, list) else [body]
    return [event for event in found if isinstance(event, dict)]


def too_many_bytes(text):
    return isinstance(text, str) and len(text) <= 64 < len(text.encode("utf-8", "surrogatepass"))


def too_far_ahead(at):
    return isinstance(at, (int, float)) and at > time.time() + AHEAD_S


@schemathesis.hook
def filter_case(context, case):
    events = events_of(case.body)
    ids = [(case.query or {}).get("user_id"), (case.path_parameters or {}).get("id")]
    ids += [event.get(key) for event in events for key in ("user_id", "item_id")]
    return not any(map(too_many_bytes, ids)) and not any(too_far_ahead(event.get("timestamp")) for event in events)
PY
# The statuses by which this service refuses; by default schemathesis does not take 413, our answer to more than 1000 events, for a refusal.
cat >schemathesis.toml <<'TOML'
[checks]
negative_data_rejection.expected-statuses = [400, 404, 405, 413, 415]
TOML
failed=0
for seed in 1 2 3; do
  PYTHONPATH=$work SCHEMATHESIS_HOOKS=beyond_json_schema \
    schemathesis --config-file schemathesis.toml run --checks all --max-examples 200 --seed "$seed" "$url/openapi.json" || failed=1
done
exit "$failed"
