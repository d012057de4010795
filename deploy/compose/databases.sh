#!/bin/sh
# Run by the postgres image once, on an empty data directory: creates a role and a database for each service, which
# no other service's role may connect to.
set -eu
for service in gateway pledges payments leaderboard notify; do
  psql --no-psqlrc --set ON_ERROR_STOP=1 --set name="$service" --set password="$POSTGRES_PASSWORD" <<'END'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
END
done
