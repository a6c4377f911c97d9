ARG BASE=python:3.12-slim
FROM ${BASE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src

RUN useradd --create-home agentdata && install --directory --owner=agentdata /data
USER agentdata
ENV AGENTDATA_CACHE=/data/cache
WORKDIR /data
ENTRYPOINT ["agentdata"]
