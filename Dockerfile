# One image for every node: Python, CUDA, NCCL, DALI and this project, for any user.
# docs/containers.md explains how to build and run it.

ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS base
# torch.compile needs a compiler, Python's headers and openssl at run time.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive \
       apt-get install --yes --no-install-recommends g++ openssl python3-dev \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

FROM base AS libraries
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
WORKDIR /build
COPY pyproject.toml requirements.lock ./
# All extras except the development tools, at the versions and hashes of the lock: uv keeps those
# that it finds in its output file. For a package mirror, the first secret sets variables of pip and
# uv, and the second is a certificate that they may name.
RUN --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=packages \
    --mount=type=secret,id=certificate \
    set -a \
    && if [ -f /run/secrets/packages ]; then . /run/secrets/packages; fi \
    && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install uv \
    && PATH=/opt/uv/bin:$PATH UV_LINK_MODE=copy VIRTUAL_ENV=/opt/venv \
    && uv venv --python /usr/bin/python3 /opt/venv \
    && cp requirements.lock image.lock \
    && uv pip compile pyproject.toml --extra all --constraint requirements.lock --generate-hashes \
       --quiet --output-file image.lock \
    && uv pip sync --require-hashes --compile-bytecode image.lock \
    && ln -s /app/pipeline /opt/venv/lib/python3*/site-packages/

FROM base
COPY --from=libraries /opt/venv /opt/venv
# As few variables as possible: under pyxis they override those of the job. NVIDIA's hooks mount the
# driver only if the first two are set; video is for DALI's hardware JPEG decoder.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    PATH=/opt/venv/bin:$PATH \
    HOME=/work
WORKDIR /app
COPY . .
ARG GIT_COMMIT
RUN if [ "$GIT_COMMIT" ]; then echo "{\"git_commit\": \"$GIT_COMMIT\"}" >commit.json; fi \
    && chmod -R a+rX . \
    && python data/prepare.py digits --out datasets/digits \
    && python -m compileall -q . \
    && install --directory --mode=1777 /work
# All output goes here; mount a volume to keep it.
WORKDIR /work
USER 1000:1000
CMD ["python", "/app/launch/submit.py", "--local", "/app/configs/quickstart.yaml", \
     "data.dir=/app/datasets/digits"]
