#!/bin/sh
# Prints the Secrets that the manifests reference, with new random values. Run it once for an installation:
#   deploy/k8s/secrets.sh | kubectl create --namespace ataa --filename -
# `create` does not change existing Secrets, on purpose: ATAA_TOKEN_SECRET must never change. Keep a copy with
# your other secrets. Read from the environment where set: ATAA_ADMIN_KEY, ATAA_KAFKA_SASL_USER and
# ATAA_KAFKA_SASL_PASSWORD (of an external Kafka), ATAA_STRIPE_API_KEY, ATAA_STRIPE_PUBLISHABLE_KEY,
# ATAA_STRIPE_WEBHOOK_SECRETS, ATAA_SMTP_URL, ATAA_LOG_KEY (python -m gateway.transparency.note_keys HOST). Without a Stripe key, a key and a webhook secret are generated for the
# sandbox. POSTGRES_HOST is the host of the databases (ataa-postgres-rw), POSTGRES_OPTIONS the query string of their
# addresses (?sslmode=require).
set -eu

random() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

secret() { # name, type, then pairs of key and value
  # With this label CloudNativePG updates a role's password when its Secret changes.
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  labels: {cnpg.io/reload: "true"}\n' "$1"
  printf 'type: %s\nstringData:\n' "$2"
  shift 2
  while [ $# -gt 0 ]; do
    printf "  %s: '%s'\n" "$1" "$2"
    shift 2
  done
}

if [ -n "${ATAA_STRIPE_API_KEY:-}" ] && [ -z "${ATAA_STRIPE_WEBHOOK_SECRETS:-}" ]; then
  echo "ataa: ATAA_STRIPE_API_KEY is set without ATAA_STRIPE_WEBHOOK_SECRETS" >&2
  exit 2
fi

for service in gateway pledges payments leaderboard notify; do
  password=$(random 24)
  host=${POSTGRES_HOST:-ataa-postgres-rw}
  secret "ataa-$service-database" kubernetes.io/basic-auth username "$service" password "$password" \
    url "postgresql://$service:$password@$host:5432/$service${POSTGRES_OPTIONS-?sslmode=require}"
done
secret ataa-kafka kubernetes.io/basic-auth username "${ATAA_KAFKA_SASL_USER:-ataa}" \
  password "${ATAA_KAFKA_SASL_PASSWORD:-$(random 24)}"
secret ataa-internal Opaque secret "$(random 32)"
secret ataa-gateway Opaque admin-key "${ATAA_ADMIN_KEY:-ak_admin_$(random 20)}" \
  log-key "${ATAA_LOG_KEY:-}"
secret ataa-pledges Opaque token-secret "$(random 32)"
case "${ATAA_STRIPE_API_KEY:-}" in
  sk_live_* | rk_live_*) mode=live ;;
  *) mode=test ;;
esac
secret ataa-payments Opaque stripe-mode "$mode" \
  stripe-api-key "${ATAA_STRIPE_API_KEY:-sk_test_$(random 16)}" \
  stripe-webhook-secrets "${ATAA_STRIPE_WEBHOOK_SECRETS:-whsec_$(random 24)}" \
  stripe-publishable-key "${ATAA_STRIPE_PUBLISHABLE_KEY:-}"
secret ataa-notify Opaque smtp-url "${ATAA_SMTP_URL:-}"
