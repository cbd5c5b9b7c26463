"""The PyTorch contenders of the benchmarks: jaxvae's networks, with the same weights.

`released_scores` follows the procedure of the code released with the paper: one forward pass per map, and backward
passes that also compute the parameters' gradients. `two_pullbacks` is a careful user's code: one forward pass, two
calls of autograd, frozen parameters. `stacked_pullbacks` is the fastest that we could write. It has the pullbacks as
layers, both cotangents in one batch and no autograd, so that `torch.compile` and CUDA graphs can take all of it.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Maps = dict[str, torch.Tensor]
Result = TypeVar("Result")


class ConvVAE(nn.Module):
    """`jaxvae.ConvVAE`, with its parameters."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__()
        kernels = {
            name: torch.from_numpy(np.array(value).transpose(3, 2, 0, 1).copy()) for name, value in params.items()
        }
        self.levels = sum(name.startswith("encoder_") for name in kernels) - 1
        self.kernels = nn.ParameterDict({name: nn.Parameter(kernel) for name, kernel in kernels.items()})

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = images
        for i in range(self.levels):
            features = F.leaky_relu(F.conv2d(features, self.kernels[f"encoder_{i}"], stride=2, padding=1), 0.01)
        heads = F.conv2d(features, self.kernels["encoder_latent"])[:, :, 0, 0]
        mean, log_std = heads.chunk(2, dim=1)
        return mean, log_std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        features = F.conv_transpose2d(latents[:, :, None, None], self.kernels["decoder_latent"])
        for i in range(self.levels):
            features = F.leaky_relu(features, 0.01)
            features = F.conv_transpose2d(features, self.kernels[f"decoder_{i}"], stride=2, padding=1)
        return features


class DenseVAE(nn.Module):
    """`jaxvae.DenseVAE`, with its parameters."""

    def __init__(self, params: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for name, layer in params.items():
            linear = nn.Linear(*layer["kernel"].shape)
            linear.weight.data = torch.from_numpy(np.array(layer["kernel"]).T.copy())
            linear.bias.data = torch.from_numpy(np.array(layer["bias"]))
            self.layers[name] = linear

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = F.relu(self.layers["encoder_hidden"](images.flatten(1)))
        return self.layers["encoder_mean"](hidden), self.layers["encoder_log_std"](hidden)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.layers["decoder_hidden"](latents))
        return torch.sigmoid(self.layers["decoder_image"](hidden))


def kl_of(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    return 0.5 * (torch.exp(2 * log_std) + mean**2 - 1 - 2 * log_std).sum(dim=1)


def nll_of(images: torch.Tensor, means: torch.Tensor, log_scale: float) -> torch.Tensor:
    return 0.5 * ((images - means) * math.exp(-log_scale)) ** 2 + log_scale + 0.5 * math.log(2 * math.pi)


@functools.cache
def _kernel(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The Gaussian of 7 weights, made on the device: a CUDA graph cannot capture a copy from the host."""
    kernel = torch.exp(-0.5 * (torch.arange(-3, 4, device=device) / 3.0) ** 2)
    return (kernel / kernel.sum()).to(dtype)


def smooth_square(maps: torch.Tensor) -> torch.Tensor:
    """Smooth with the 7x7 kernel in one convolution, as the released code does."""
    kernel = _kernel(maps.device, maps.dtype)
    return F.conv2d(maps, torch.outer(kernel, kernel)[None, None], padding=3)


def smooth_separable(maps: torch.Tensor) -> torch.Tensor:
    kernel = _kernel(maps.device, maps.dtype)
    return F.conv2d(
        F.conv2d(maps, kernel[None, None, :, None], padding=(3, 0)), kernel[None, None, None], padding=(0, 3)
    )


def released_scores(model: ConvVAE, images: torch.Tensor, log_scale: float) -> Maps:
    """All maps by the released procedure, with gradients per image so that they equal jaxvae's."""

    def gradient(kl_weight: float, nll_weight: float) -> torch.Tensor:
        x = images.clone().requires_grad_()
        model.zero_grad()
        mean, log_std = model.encode(x)
        total = nll_weight * nll_of(x, model.decode(mean), log_scale).sum() + kl_weight * kl_of(mean, log_std).sum()
        total.backward()
        assert x.grad is not None
        return x.grad.abs()

    with torch.no_grad():
        error = (images - model.decode(model.encode(images)[0])) ** 2
    maps = {"elbo_grad": gradient(1, 1), "kl_grad": gradient(1, 0), "rec_grad": gradient(0, 1)}
    maps = {name: smooth_square(values) for name, values in maps.items()}
    return {"rec_error": error, **maps, "combi": error * maps["kl_grad"]}


def two_pullbacks(model: ConvVAE, images: torch.Tensor, log_scale: float) -> Maps:
    """All maps from one forward pass and two pullbacks. The parameters must be frozen."""
    x = images.clone().requires_grad_()
    mean, log_std = model.encode(x)
    means = model.decode(mean)
    (kl_grad,) = torch.autograd.grad(kl_of(mean, log_std).sum(), x, retain_graph=True)
    (rec_grad,) = torch.autograd.grad(nll_of(x, means, log_scale).sum(), x)
    return finished(images, means.detach(), kl_grad, rec_grad)


def stacked_pullbacks(model: ConvVAE, images: torch.Tensor, log_scale: float) -> Maps:
    """All maps without autograd: a pullback is the transpose of its layer times the slope of LeakyReLU."""

    def slope(features: torch.Tensor) -> torch.Tensor:
        return torch.where(features > 0, 1.0, 0.01).to(features.dtype)

    kernels, levels = model.kernels, range(model.levels)
    encoded, decoded, features = [], [], images
    for i in levels:
        features = F.leaky_relu(F.conv2d(features, kernels[f"encoder_{i}"], stride=2, padding=1), 0.01)
        encoded.append(features)
    mean, log_std = F.conv2d(features, kernels["encoder_latent"])[:, :, 0, 0].chunk(2, dim=1)
    features = F.conv_transpose2d(mean[:, :, None, None], kernels["decoder_latent"])
    for i in levels:
        features = F.leaky_relu(features, 0.01)
        decoded.append(features)
        features = F.conv_transpose2d(features, kernels[f"decoder_{i}"], stride=2, padding=1)
    means, direct = features, (images - features) * math.exp(-2 * log_scale)
    cotangent = -direct
    for i in reversed(levels):
        cotangent = F.conv2d(cotangent, kernels[f"decoder_{i}"], stride=2, padding=1) * slope(decoded[i])
    of_mean = F.conv2d(cotangent, kernels["decoder_latent"])[:, :, 0, 0]
    of_kl = torch.cat([mean, torch.expm1(2 * log_std)], dim=1)
    of_nll = torch.cat([of_mean, torch.zeros_like(of_mean)], dim=1)
    cotangent = F.conv_transpose2d(torch.cat([of_kl, of_nll])[:, :, None, None], kernels["encoder_latent"])
    for i in reversed(levels):
        cotangent = cotangent * slope(encoded[i]).repeat(2, 1, 1, 1)
        cotangent = F.conv_transpose2d(cotangent, kernels[f"encoder_{i}"], stride=2, padding=1)
    kl_grad, through_encoder = cotangent.chunk(2)
    return finished(images, means, kl_grad, through_encoder + direct)


def finished(images: torch.Tensor, means: torch.Tensor, kl_grad: torch.Tensor, rec_grad: torch.Tensor) -> Maps:
    elbo, kl, rec = smooth_separable(torch.cat([(kl_grad + rec_grad).abs(), kl_grad.abs(), rec_grad.abs()])).chunk(3)
    error = (images - means) ** 2
    return {"rec_error": error, "elbo_grad": elbo, "kl_grad": kl, "rec_grad": rec, "combi": error * kl}


def channels_last(model: nn.Module) -> nn.Module:
    """The model with its convolutions' kernels in that layout."""
    for kernel in model.parameters():
        kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    return model


def as_graph(function: Callable[[], Result]) -> Callable[[], Result]:
    """Capture a function without arguments in one CUDA graph, which saves launches.

    It reads and writes the same arrays in each call, and must not wait for the device. The first calls, on a stream of
    their own, compile and choose algorithms, which cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def replay() -> Result:
        graph.replay()
        return result

    return replay


def trainer(
    model: ConvVAE | DenseVAE, log_scale: float, learning_rate: float, *, compiled: bool = False, fused: bool = True
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make a function that takes one Adam step on the negative ELBO of a batch and returns the loss.

    With `fused` on a GPU, `as_graph` can capture a step.
    """
    on_gpu = next(model.parameters()).is_cuda
    optimizer = torch.optim.Adam(model.parameters(), learning_rate, fused=fused, capturable=fused and on_gpu)

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        mean, log_std = model.encode(images)
        means = model.decode(mean + torch.exp(log_std) * torch.randn_like(mean))
        nll = nll_of(images.reshape(means.shape), means, log_scale)
        return (kl_of(mean, log_std) + nll.flatten(1).sum(dim=1)).mean()

    if compiled:
        loss_of = torch.compile(loss_of, dynamic=False)

    def step(images: torch.Tensor) -> torch.Tensor:
        # Gradients are set to None, so that the backward pass writes them and the graph keeps their place.
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
