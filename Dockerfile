# The command line, with the built-in models: docker build -t hsamsegment .
# How to use it: Docs/offline.md, "In a container".
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# What pip finds by itself runs with and without a GPU. TORCH_INDEX names another index of PyTorch: for CPUs only, which
# is much smaller, or for another version of CUDA.
ARG TORCH="torch==2.13.0"
ARG TORCH_INDEX=""
RUN python -m venv /app && /app/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"
COPY pyproject.toml setup.py README.md LICENSE /source/
COPY HSAMSegmentLib /source/HSAMSegmentLib
COPY Resources /source/Resources
RUN /app/bin/pip install --no-cache-dir "/source[dicom,surfaces,hub,serve]"
# An image that cannot segment is not finished. What this leaves behind stays in this stage.
RUN /app/bin/hsam-segment doctor --self-test

FROM python:${PYTHON}-slim
COPY --from=build /app /app
# Writable for every user, because 'docker run --user' may name one that the image does not know.
RUN useradd --uid 10001 --no-create-home --home-dir /data hsam && install --directory --mode 1777 /data
ENV PATH="/app/bin:$PATH" \
    HOME=/data \
    HSAMSEGMENT_HOME=/data/store \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /data
EXPOSE 8000
# Python heeds it as the first process of a container, too; it ignores SIGTERM there.
STOPSIGNAL SIGINT
ENTRYPOINT ["hsam-segment"]
CMD ["--help"]
