# ckptsel in a container.
#
#   docker build -t ckptsel .                                     the CPU, and what torch's default wheel brings
#   docker build --build-arg TORCH_INDEX=<index of CPU wheels> -t ckptsel .       a fifth of the size
#   docker build --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime -t ckptsel:cuda .
#
#   docker run --rm -v "$PWD:/work" ckptsel rank ckpts/ --data my_images/ --out ranking/
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/work" ckptsel:cuda rank ...
ARG BASE=python:3.12-slim

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tools/readme.py tools/
COPY ckptsel ckptsel
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# The base is chosen by whoever builds.
# hadolint ignore=DL3006
FROM ${BASE}
# Where CPU or CUDA wheels of torch lie, as its installation page says; empty: the base's torch, else the default.
ARG TORCH_INDEX=""
COPY --from=wheel /wheels /wheels
# Versions are the wheel's own to bound. A base with torch keeps it.
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; \
    fi \
    && pip install --no-cache-dir /wheels/*.whl \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 ckptsel \
    && mkdir /cache /work \
    && chown ckptsel /cache /work
USER 1000
ENV CKPTSEL_CACHE=/cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["ckptsel"]
CMD ["--help"]
