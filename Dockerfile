# One image for every process of Ataa; what it runs is its argument:
#   docker run ataa:0.1.0 services.pledges      (services.payments, services.leaderboard, services.notify)
#   docker run ataa:0.1.0 gateway
#   docker run ataa:0.1.0 embedded              (everything in one, on SQLite in /data)
# It runs as user 10001 with a read-only root; /data (and /tmp, if any library wants it) are to be mounted.
# Health: GET /livez, /startupz and /readyz on the process's port, /metrics on ATAA_METRICS_PORT. Which port
# that is depends on the argument, so the image itself has no HEALTHCHECK: see deploy/k8s and deploy/compose.
ARG PYTHON=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/ataa
COPY requirements.lock /tmp/requirements.lock
# Wheels only: nothing is compiled, so that no compiler is wanted here either.
RUN python -m pip --python /opt/ataa/bin/python install \
      --require-hashes --only-binary :all: -r /tmp/requirements.lock
WORKDIR /app
COPY backbone backbone
COPY services services
COPY gateway gateway
COPY sandbox sandbox
COPY embedded embedded
COPY docs/api-guide.md docs/api-guide.md
COPY LICENSE LICENSE
# The root is read-only later: what Python would write beside its sources is made now.
RUN /opt/ataa/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/ataa/lib /app

# hadolint ignore=DL3006
FROM ${PYTHON} AS run
LABEL org.opencontainers.image.title="Ataa" \
      org.opencontainers.image.description="The open-source backend of live donation drives" \
      org.opencontainers.image.licenses="Apache-2.0"
# No installer in what runs; a user of its own, and the one folder it may write to.
RUN python -m pip uninstall --quiet --yes --root-user-action ignore setuptools wheel pip \
 && groupadd --gid 10001 ataa \
 && useradd --no-log-init --uid 10001 --gid ataa --no-create-home --home-dir /data --shell /usr/sbin/nologin ataa \
 && install -d -o ataa -g ataa -m 0750 /data
COPY --from=build /opt/ataa /opt/ataa
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/ataa/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ATAA_DATA_DIR=/data
VOLUME /data
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m"]
CMD ["embedded"]
