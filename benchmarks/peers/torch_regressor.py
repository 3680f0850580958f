"""The regressor of configs/tier1.json and its training step in PyTorch, as fast as we know how to write them there.

The function is that of `cloudml_tf.models.build_regressor` with architecture "attention": `Regressor.load` takes the
weights of the Keras model, and `benchmarks/step.py` asserts that both then give the same answers and the same loss.
Letters: B batch, T time, H rows, W columns, C channels, D features. Frames come as in Keras, channels last.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Weights = dict[str, np.ndarray]  # path -> value, as in `keras.Model.trainable_variables`
OWN_NAMES = {"frame_token": "token"}


class Regressor(nn.Module):
    """Raw sequences (B,T,H,W,1) and sun angles (B,T,2) to one number a sequence (B,1).

    Args:
        frame_mean, frame_std: of the training frames.
        nadir: (row, column) of the lidar's footprint.
        frames: T.
        widths, features, heads, units, dropout: as in `build_regressor`.
    """

    def __init__(
        self,
        frame_mean: float,
        frame_std: float,
        nadir: tuple[int, int],
        frames: int = 3,
        widths: Sequence[int] = (16, 24, 32),
        features: int = 64,
        heads: int = 4,
        units: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.mean, self.std, self.nadir, self.heads, self.dropout = frame_mean, frame_std, nadir, heads, dropout
        self.near_0, self.near_1 = nn.Conv2d(1, first, 3), nn.Conv2d(first, first, 3)
        self.mix = nn.Conv2d(first, first, 1)
        self.sums = nn.Parameter(torch.full((11, 11, first, 2), 1 / 11))
        self.sums_bias = nn.Parameter(torch.zeros(2 * first))
        self.coarser_0, self.coarser_1 = nn.Conv2d(first, second, 3, stride=2), nn.Conv2d(second, third, 3)
        self.context_0 = nn.Conv2d(1, first, 3, padding=1)
        self.context_1 = nn.Conv2d(first, second, 3, stride=2)
        self.context_2 = nn.Conv2d(second, third, 3, stride=2)
        self.vector = nn.Linear(2 * first + 9 * first + 9 * second + 25 * third + third + 9, features)
        self.token = nn.Linear(features + 4, features)
        self.steps = nn.Parameter(torch.zeros(frames, features))
        self.norm = nn.LayerNorm(features, eps=1e-3)  # Keras' epsilon
        self.query_key_value = nn.Linear(features, 3 * features)
        self.attended = nn.Linear(features, features)
        self.head, self.output = nn.Linear(2 * features, units), nn.Linear(units, 1)

    def forward(self, frames: torch.Tensor, sun_deg: torch.Tensor) -> torch.Tensor:
        """The prediction in standard deviations of the target, (B,1)."""
        batch, time = frames.shape[:2]
        maps = (frames.flatten(0, 1).permute(0, 3, 1, 2) - self.mean) / self.std  # (B·T,1,H,W), a view: one channel
        encoded = self.encode(maps).view(batch, time, -1)
        x = functional.gelu(self.token(torch.cat([encoded, sun_vector(sun_deg)], -1)))  # (B,T,D)
        x = x + self.steps
        x = x + self.attention(self.norm(x))
        x = torch.cat([x[:, time // 2], x.mean(1)], -1)  # (B,2D)
        return self.output(self.drop(functional.gelu(self.head(x))))

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        """Dropout while training."""
        return functional.dropout(x, self.dropout, self.training)

    def encode(self, frame: torch.Tensor) -> torch.Tensor:
        """Standardised frames (N,1,H,W) to vectors (N,D)."""
        row, column = self.nadir
        window = frame[:, :, row - 9 : row + 10, column - 9 : column + 10]
        x = functional.gelu(self.near_1(functional.gelu(self.near_0(window))))  # (N,16,15,15)
        mixed = functional.gelu(self.mix(middle(x, 11)))
        # Footprint sums: one number a channel and kernel, so a product of matrices; quicker than a grouped convolution.
        sums = torch.einsum("nchw,hwcm->ncm", mixed, self.sums).flatten(1) + self.sums_bias
        parts = [sums, flat(middle(x, 3))]
        x = functional.gelu(self.coarser_0(x))  # (N,24,7,7)
        parts.append(flat(middle(x, 3)))
        x = functional.gelu(self.coarser_1(x))  # (N,32,5,5)
        parts += [flat(x), self.context(frame)]
        pixels = flat(frame[:, :, row - 1 : row + 2, column - 1 : column + 2])
        return self.drop(functional.gelu(self.vector(torch.cat([self.drop(torch.cat(parts, 1)), pixels], 1))))

    def context(self, frame: torch.Tensor) -> torch.Tensor:
        """The whole frame, averaged. (N,1,H,W) -> (N,32)."""
        x = functional.gelu(self.context_0(functional.avg_pool2d(frame, 2)))
        for layer in (self.context_1, self.context_2):  # "same" with stride 2 pads below and to the right
            x = functional.gelu(layer(functional.pad(x, (0, 1, 0, 1))))
        return x.mean((2, 3))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """Self-attention over time. (B,T,D) -> (B,T,D)."""
        batch, time, size = x.shape
        split = self.query_key_value(x).view(batch, time, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(split[0], split[1], split[2], dropout_p=dropout)
        return self.attended(mixed.transpose(1, 2).reshape(batch, time, size))

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Take the weights of the Keras model. Raises `KeyError` for one that has no place here."""
        left = dict(weights)

        def take(path: str) -> torch.Tensor:
            return torch.from_numpy(left.pop(path))

        named = ("near_0", "near_1", "mix", "coarser_0", "coarser_1", "context_0", "context_1", "context_2")
        for name in (*named, "vector", "frame_token", "head", "output"):
            layer, kernel = getattr(self, OWN_NAMES.get(name, name)), take(f"{name}/kernel")
            layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
            layer.bias.copy_(take(f"{name}/bias"))
        self.sums.copy_(take("footprint_sums/kernel").reshape(self.sums.shape))
        self.sums_bias.copy_(take("footprint_sums/bias"))
        self.steps.copy_(take("time/steps"))
        self.norm.weight.copy_(take("norm/gamma"))
        self.norm.bias.copy_(take("norm/beta"))
        size = self.attended.in_features
        for i, name in enumerate(("query", "key", "value")):
            rows = slice(i * size, (i + 1) * size)
            self.query_key_value.weight[rows] = take(f"attention/{name}/kernel").reshape(size, size).T
            self.query_key_value.bias[rows] = take(f"attention/{name}/bias").reshape(size)
        self.attended.weight.copy_(take("attention/attention_output/kernel").reshape(size, size).T)
        self.attended.bias.copy_(take("attention/attention_output/bias"))
        if left:
            raise KeyError(f"the twin has no place for {', '.join(left)}")


def middle(x: torch.Tensor, size: int) -> torch.Tensor:
    """The middle of a feature map, (N,C,H,W) -> (N,C,size,size)."""
    row, column = x.shape[2] // 2 - size // 2, x.shape[3] // 2 - size // 2
    return x[:, :, row : row + size, column : column + size]


def flat(x: torch.Tensor) -> torch.Tensor:
    """(N,C,H,W) -> (N,H·W·C), the order of Keras."""
    return x.permute(0, 2, 3, 1).flatten(1)


def sun_vector(angles_deg: torch.Tensor) -> torch.Tensor:
    """As `cloudml_tf.nn.layers.SunVector`. (B,T,2) -> (B,T,4)."""
    zenith, azimuth = (angles_deg * (math.pi / 180.0)).unbind(-1)
    return torch.stack([zenith.sin() * azimuth.cos(), zenith.sin() * azimuth.sin(), zenith.cos(), zenith.sin()], -1)


def variance_preserving_loss(
    prediction: torch.Tensor, target: torch.Tensor, target_variance: float, weight: float = 0.5
) -> torch.Tensor:
    """mse + weight · (1 - var(p)/var(t))², as `cloudml_tf.losses` with a fixed variance of the target."""
    ratio = prediction.var() / (target_variance + 1e-8)
    return functional.mse_loss(prediction, target) + weight * (1.0 - ratio).square()


class Trainer:
    """One training step: forward, backward, clip, AdamW, average of the weights.

    Args:
        model: the network; trained in place.
        rate: step (from 0) -> learning rate.
        target_variance: for the loss.
        weight_decay, clip_norm, momentum: as in `cloudml_tf.config.training.Training`.
        compiled: whether torch.compile makes one program of the forward and backward pass.
    """

    def __init__(
        self,
        model: Regressor,
        rate: Callable[[int], float],
        target_variance: float,
        weight_decay: float = 1e-4,
        clip_norm: float = 1.0,
        momentum: float = 0.995,
        compiled: bool = False,
    ) -> None:
        self.model, self.rate, self.clip_norm, self.momentum, self.count = model, rate, clip_norm, momentum, 0
        self.parameters = list(model.parameters())
        kernels = [p for name, p in model.named_parameters() if p.ndim > 1 and name != "steps"]
        others = [p for name, p in model.named_parameters() if p.ndim == 1 or name == "steps"]
        groups = [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, eps=1e-7, fused=True)
        self.average = [p.detach().clone() for p in self.parameters]

        def loss(frames: torch.Tensor, sun_deg: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return variance_preserving_loss(model(frames, sun_deg), target, target_variance)

        self.loss = torch.compile(loss) if compiled else loss

    def step(self, frames: torch.Tensor, sun_deg: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Train on one batch; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.count)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(frames, sun_deg, target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        share = 1.0 - min(self.momentum, (1.0 + self.count) / (10.0 + self.count))
        torch._foreach_lerp_(self.average, self.parameters, share)
        self.count += 1
        return loss.detach()
