# One image for the worker, the command line and, for the demo in containers, the sandbox API.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock requirements-otel.lock requirements-build.lock ./
# What the image will hold, each package checked against its hash. With tracing (docs/tracing.md):
# docker build --build-arg REQUIREMENTS=requirements-otel.lock .
ARG REQUIREMENTS=requirements.lock
RUN python -m venv /opt/lock-worker \
    && /opt/lock-worker/bin/pip install --no-cache-dir --require-hashes -r "${REQUIREMENTS}"
# What builds the wheel stays behind in this stage.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE settings.py ./
COPY tasks tasks
COPY worker worker
COPY sandbox sandbox
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/lock-worker/bin/pip install --no-cache-dir --no-deps --no-index dist/*.whl \
    && /opt/lock-worker/bin/pip uninstall --yes setuptools pip

FROM python:3.11.14-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /run/lock-worker --create-home lock-worker
COPY --from=build /opt/lock-worker /opt/lock-worker
ENV PATH=/opt/lock-worker/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /run/lock-worker
STOPSIGNAL SIGTERM
# For Docker; Kubernetes asks /livez and /readyz itself. A command that runs no worker switches it off (--no-healthcheck).
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 CMD ["lock-worker", "ping"]
# Becomes `celery -A worker worker`, so the container's first process is the worker, and SIGTERM reaches it.
CMD ["lock-worker", "run"]
