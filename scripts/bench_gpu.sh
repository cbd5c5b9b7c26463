#!/usr/bin/env bash
# Benchmarks and tests for an NVIDIA GPU, in under 8 minutes, with one table at the end. Results and logs go to OUT; the same
# command continues there. The figure needs the folder of FashionMNIST. --quick: small, on any device. Installs nothing.
#     PYTHON=python3 bash scripts/bench_gpu.sh OUT [FASHION_MNIST_FOLDER] [--quick]
exec "${PYTHON:-python3}" "$(dirname "$0")/bench_device.py" gpu "$@"
