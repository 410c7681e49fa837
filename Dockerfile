# metarl for CPUs:
#     docker build -t metarl .
#     docker run --rm -v "$PWD/runs:/metarl/runs" metarl train half_cheetah_dir/demo
# With torch for GPUs (and then --device cuda):
#     docker build -t metarl --build-arg TORCH=cu128 .
#     docker run --rm --gpus all -v "$PWD/runs:/metarl/runs" metarl train half_cheetah_dir/demo --device cuda
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# Videos of robots are drawn by EGL, here with Mesa.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libopengl0 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY constraints.txt ./

# The build of torch: cpu, or one of PyTorch's CUDA versions, such as cu128.
ARG TORCH=cpu
RUN pip install --no-cache-dir -c constraints.txt torch \
    --index-url "https://download.pytorch.org/whl/${TORCH}" --extra-index-url https://pypi.org/simple

COPY . .
# EXTRAS: [cluster], [tune] and so on, of pyproject.toml.
ARG EXTRAS=""
RUN pip install --no-cache-dir -c constraints.txt ".${EXTRAS}"

ENV MUJOCO_GL=egl
WORKDIR /metarl
ENTRYPOINT ["metarl"]
CMD ["--help"]
