# docker build --tag fcnseg .                            --build-arg EXTRAS=timm,sweep for more, PYTHON=3.11 for another
# docker run --gpus all --shm-size 8g -v PATH:/data:ro -v ./runs:/workspace/runs fcnseg train data=camvid data.root=/data
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG EXTRAS=""
ARG UID=1000
RUN useradd --create-home --uid "${UID}" fcnseg && install --directory --owner=fcnseg /workspace/runs

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY fcnseg fcnseg
RUN python -m pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}"

USER ${UID}
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /workspace
# The shipped network over embedded scenes, on the CPU: nothing is read from outside, and runs/ stays as it is.
HEALTHCHECK --interval=30m --timeout=2m --start-period=1m \
    CMD ["fcnseg", "evaluate", "checkpoint=demo", "device=cpu", "data.val.length=2", "data.num_workers=0", "hydra.run.dir=/tmp/health"]
ENTRYPOINT ["fcnseg"]
CMD ["--help"]
