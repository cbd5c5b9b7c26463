#!/usr/bin/env bash
# The same as bench_gpu.sh where JAX finds TPUs, without PyTorch.
#     PYTHON=python3 bash scripts/bench_tpu.sh OUT [FASHION_MNIST_FOLDER] [--quick]
exec "${PYTHON:-python3}" "$(dirname "$0")/bench_device.py" tpu "$@"
