#!/bin/sh
# Prints an environment file with new random secrets for compose.yaml. Run it once for an installation:
#   deploy/compose/new-env.sh > deploy/compose/.env
# Keep the file: ATAA_TOKEN_SECRET must never change. The Stripe key and webhook secret are for the sandbox. For
# your own Stripe account, replace both and remove the first two lines. With a live key also set
# ATAA_STRIPE_MODE=live, so that test drives refuse pledges.
set -eu
umask 077

random() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

cat <<END
COMPOSE_PROFILES=sandbox
ATAA_STRIPE_API_BASE=http://sandbox:8012
ATAA_STRIPE_API_KEY=sk_test_$(random 16)
ATAA_STRIPE_WEBHOOK_SECRETS=whsec_$(random 24)
ATAA_ADMIN_KEY=ak_admin_$(random 20)
ATAA_INTERNAL_SECRET=$(random 32)
ATAA_TOKEN_SECRET=$(random 32)
ATAA_PUBLIC_URL=http://127.0.0.1:8000
DATABASE_PASSWORD=$(random 24)
GRAFANA_PASSWORD=$(random 12)
END
