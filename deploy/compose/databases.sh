#!/bin/sh
# Run once by the postgres image, on an empty data directory: a role and a database for each service,
# which no other service's role may enter.
set -eu
for service in gateway pledges payments leaderboard notify; do
  psql --no-psqlrc --set ON_ERROR_STOP=1 --set name="$service" --set password="$POSTGRES_PASSWORD" <<'END'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
END
done
