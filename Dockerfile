ARG BASE=python:3.12-slim
FROM ${BASE}

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src

# Any --user may write where nothing is mounted, and mirror a file:// repository that another user owns.
RUN useradd --create-home agentdata \
    && install --directory --mode=1777 /data \
    && git config --system --add safe.directory '*'
USER agentdata
ENV AGENTDATA_CACHE=/data/cache HF_HOME=/data/cache/huggingface
WORKDIR /data
ENTRYPOINT ["agentdata"]
