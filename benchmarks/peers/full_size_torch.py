"""The full-size network and its training step in PyTorch; see `benchmarks/gpu_step.py`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SLOPE, EPSILON = 0.1, 1e-5
EPSILON_ADAM = 1e-10  # Keras and PyTorch place it differently; so small, it is the same


class FullSize(nn.Module):
    """Frames (B,T,1,H,W) to (B,1)."""

    def __init__(self, widths: tuple[int, ...], heads: int, units: int) -> None:
        super().__init__()
        self.heads, size = heads, widths[-1]
        pairs = zip((1, *widths), widths, strict=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=EPSILON) for width in widths)
        self.query_key_value, self.attended = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.head, self.output = nn.Linear(size, units), nn.Linear(units, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """In float32 after the head."""
        batch, time = frames.shape[:2]
        x = frames.flatten(0, 1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.leaky_relu(functional.max_pool2d(norm(convolution(x)), 2), SLOPE)  # monotone: pool first
        x = x.mean((2, 3)).view(batch, time, -1)  # (B,T,D)
        split = self.query_key_value(x).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        x = (x + self.attended(mixed.transpose(1, 2).reshape(batch, time, -1))).mean(1)
        return self.output(functional.leaky_relu(self.head(x), SLOPE)).float()

    @torch.no_grad()
    def load(self, weights: list[np.ndarray]) -> None:
        """Keras' shapes, in the order of `gpu_step.first_weights`."""
        left = iter(torch.from_numpy(w) for w in weights)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.weight.copy_(next(left).permute(3, 2, 0, 1))
            norm.weight.copy_(next(left))
            norm.bias.copy_(next(left))
        size = self.attended.in_features
        for i in range(3):
            rows = slice(i * size, (i + 1) * size)
            self.query_key_value.weight[rows] = next(left).reshape(size, size).T
            self.query_key_value.bias[rows] = next(left).reshape(size)
        for layer in (self.attended, self.head, self.output):
            layer.weight.copy_(next(left).reshape(layer.in_features, layer.out_features).T)
            layer.bias.copy_(next(left))


def make_step(
    weights: list[np.ndarray], frames: np.ndarray, target: np.ndarray, heads: int, half: bool, mode: str | None
) -> tuple[Callable[[], torch.Tensor], Callable[[], None]]:
    """A training step on one batch, and what waits for the device. `mode` is torch.compile's; None is eager."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    widths = tuple(w.shape[-1] for w in weights if w.ndim == 4)
    model = FullSize(widths, heads, weights[-2].shape[0])
    model.load(weights)
    model.to(device, memory_format=torch.channels_last)
    images = torch.from_numpy(frames).to(device).permute(0, 1, 4, 2, 3)  # one channel: both layouts at once
    truth = torch.from_numpy(target).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=EPSILON_ADAM, weight_decay=1e-4, fused=True)

    def loss_of() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            prediction = model(images)
        return functional.mse_loss(prediction, truth)

    loss_now = loss_of if mode is None else torch.compile(loss_of, mode=mode)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_now()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, torch.cuda.synchronize if device == "cuda" else lambda: None
