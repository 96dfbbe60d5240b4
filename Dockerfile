# One file, four targets: `docker build --target worker .` (the biggest: with torch), `sink`, `gateway`, `tools`.
# Versions are those of constraints.txt. Nothing secret is needed to build, and nothing secret is in an image.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt uv && uv venv /opt/sightstream
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY producers producers
COPY detectors detectors
COPY sinks sinks
COPY streams streams
COPY infra infra
RUN uv pip install --python /opt/sightstream --constraints constraints.txt --build-constraints constraints.txt .

FROM build AS build-worker
# `--build-arg EXTRAS=ultralytics` adds the backend for .pt files, which is AGPL-3.0: your choice, not the default.
ARG EXTRAS=torch
RUN uv pip install --python /opt/sightstream --constraints constraints.txt --build-constraints constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin sightstream \
    && install --directory --owner 10001 --group 10001 /lake /state /uploads
ENV PATH=/opt/sightstream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SIGHTSTREAM_STATE_DIR=/state \
    SIGHTSTREAM_PARQUET_DIRECTORY=/lake \
    SIGHTSTREAM_HTTP_HOST=0.0.0.0 \
    SIGHTSTREAM_HTTP_PUBLIC=true \
    SIGHTSTREAM_LOG_FORMAT=json
ARG GIT_SHA=unknown
ENV SIGHTSTREAM_GIT_SHA=${GIT_SHA}
WORKDIR /state
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["sightstream"]

FROM runtime AS tools
COPY --from=build /opt/sightstream /opt/sightstream
HEALTHCHECK NONE
CMD ["--help"]

FROM runtime AS sink
COPY --from=build /opt/sightstream /opt/sightstream
CMD ["sink", "parquet", "--http"]

FROM runtime AS gateway
COPY --from=build /opt/sightstream /opt/sightstream
CMD ["gateway", "--port", "8080"]

FROM runtime AS worker
COPY --from=build-worker /opt/sightstream /opt/sightstream
CMD ["worker", "--port", "8080", "--respawn"]
