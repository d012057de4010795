# One image for all processes of Ataa; the argument selects the process:
#   docker run ataa:0.1.0 services.pledges      (services.payments, services.leaderboard, services.notify)
#   docker run ataa:0.1.0 gateway
#   docker run ataa:0.1.0 embedded              (all in one process, on SQLite in /data)
#   docker exec CONTAINER python -m ataa        (the operators' command)
#   docker run ataa:0.1.0 sandbox               (the Stripe sandbox)
# It runs as user 10001 and supports a read-only root file system; mount /data and /tmp.
# Health: GET /livez, /startupz and /readyz on the process's port, /metrics on ATAA_METRICS_PORT. The port depends
# on the argument, so the image has no HEALTHCHECK: see deploy/k8s and deploy/compose.
ARG PYTHON=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/ataa
COPY requirements.lock /tmp/requirements.lock
# Wheels only: nothing is compiled, so no compiler is needed.
RUN python -m pip --python /opt/ataa/bin/python install \
      --require-hashes --only-binary :all: -r /tmp/requirements.lock
WORKDIR /app
COPY backbone backbone
COPY services services
COPY gateway gateway
COPY sandbox sandbox
COPY embedded embedded
COPY edge edge
COPY ataa ataa
COPY docs/api-guide.md docs/api-guide.md
COPY LICENSE LICENSE
# The root file system is read-only at run time, so the bytecode is compiled now.
RUN /opt/ataa/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/ataa/lib /app

# hadolint ignore=DL3006
FROM ${PYTHON} AS run
LABEL org.opencontainers.image.title="Ataa" \
      org.opencontainers.image.description="The open-source backend of live donation drives" \
      org.opencontainers.image.licenses="Apache-2.0"
# No installer in the final image; its own user, and one writable directory.
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
