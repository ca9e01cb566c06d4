#!/usr/bin/env bash
# Renders the base and the overlays, and asks three programs that the tests do not need: Kubernetes' own schemas of 1.37 (strictly), kube-score and
# checkov. Each check that is left out has its reason here. Ends with 1 if one of them finds anything.
#
#   pip install kubernetes-validate==1.37.0 checkov==3.3.30
#   go install github.com/zegl/kube-score/cmd/kube-score@v1.20.0
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

render() { if command -v kustomize >/dev/null; then kustomize build "$1"; else kubectl kustomize "$1"; fi; }

kube_score=(
    # Tags are never moved, and an image that was loaded into kind is in no registry.
    container-image-pull-policy
    # The users of the official images of nginx, Redis, MySQL and Kafka, which own their files there.
    container-security-context-user-group-id
    # topologySpreadConstraints spread pods over nodes, and let them start where there is only one.
    deployment-has-host-podantiaffinity statefulset-has-host-podantiaffinity
    # access-log and otel-collector are one each; their files say why.
    deployment-replicas
    # nginx and Kafka have one question that concerns only themselves.
    pod-probes-identical
)
checkov=(
    # Digests: the overlay of a registry can set them (images: digest). Here no registry could be asked for them.
    CKV_K8S_43
    # As container-image-pull-policy and container-security-context-user-group-id above.
    CKV_K8S_15 CKV_K8S_40
    # Secrets as files: all settings of the services are variables, MySQL's image has both; a pod's variables are read with the same right.
    CKV_K8S_35
    # TLS of etcd: only the monitors reach it (policies.yaml), and the registry's client speaks plain HTTP.
    CKV_K8S_116 CKV_K8S_117 CKV_K8S_119
)

skipped=$(IFS=,; echo "${checkov[*]}")

failed=0
# Name and command; what it prints is shown only if it fails.
check() {
    local name=$1
    shift
    if "$@" >"$scratch/log" 2>&1; then
        echo "  $name: no findings"
    else
        echo "  $name: failed"
        cat "$scratch/log"
        failed=1
    fi
}
# Every object has a schema of 1.37 and fulfils it, but KEDA's, whose keys the tests check.
valid() {
    kubernetes-validate --strict -k 1.37.0 "$1"
    grep -v '^kind: ScaledObject' "$1" | grep -c '^kind:' >"$scratch/expected"
    [ "$(kubernetes-validate --strict -k 1.37.0 "$1" 2>&1 | grep -c ' passed ')" = "$(cat "$scratch/expected")" ]
}

for directory in base overlays/production overlays/local; do
    file="$scratch/rendered.yaml"
    render "$directory" >"$file"
    echo "$directory: $(grep -c '^kind:' "$file") objects"
    check kubernetes-validate valid "$file"
    check kube-score kube-score score --exit-one-on-warning "${kube_score[@]/#/--ignore-test=}" "$file"
    check checkov checkov --framework kubernetes --compact --quiet --skip-check "$skipped" -f "$file"
done
exit "$failed"
