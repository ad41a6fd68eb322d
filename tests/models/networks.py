"""Networks of medical imaging and signals in plain Flax, small enough for tests."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fedjax_med import models
from fedjax_med.engine import Batch
from fedjax_med.models import Model


class ResidualBlock(nn.Module):
    features: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x, train):
        def norm():
            if self.norm == "group":
                return nn.GroupNorm(num_groups=2)
            return nn.BatchNorm(use_running_average=not train, momentum=0.8)

        strides = (self.stride, self.stride)
        y = nn.relu(norm()(nn.Conv(self.features, (3, 3), strides, use_bias=False)(x)))
        y = norm()(nn.Conv(self.features, (3, 3), use_bias=False)(y))
        if x.shape != y.shape:
            x = norm()(nn.Conv(self.features, (1, 1), strides, use_bias=False)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Conv(4, (5, 5), (2, 2))(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        x = ResidualBlock(4, 1, self.norm)(x, train)
        x = nn.Dropout(0.3, deterministic=not train)(x)
        x = ResidualBlock(6, 2, self.norm)(x, train)
        return nn.Dense(2)(x.mean(axis=(1, 2)))


class NnxBlock(nnx.Module):
    def __init__(self, inputs, outputs, stride, norm, rngs):
        def conv(inputs, size, strides):
            return nnx.Conv(inputs, outputs, (size, size), strides, use_bias=False, rngs=rngs)

        self.first, self.second = conv(inputs, 3, stride), conv(outputs, 3, 1)
        self.norm1, self.norm2 = norm(outputs, rngs=rngs), norm(outputs, rngs=rngs)
        self.project = conv(inputs, 1, stride) if stride > 1 else lambda x: x

    def __call__(self, x):
        y = nnx.relu(self.norm1(self.first(x)))
        return nnx.relu(self.project(x) + self.norm2(self.second(y)))


class NnxResNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, *, norm=nnx.BatchNorm):
        self.stem = nnx.Conv(3, 4, (5, 5), 2, rngs=rngs)
        self.block1 = NnxBlock(4, 4, 1, norm, rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.block2 = NnxBlock(4, 6, 2, norm, rngs)
        self.head = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), "SAME")
        x = self.block2(self.dropout(self.block1(x)))
        return self.head(x.mean(axis=(1, 2)))


class UNet(nn.Module):
    """Two levels: one comes back up by a transposed convolution, one by interpolation."""

    dims: int

    @nn.compact
    def __call__(self, x):
        def block(x, features):
            x = nn.Conv(features, (3,) * self.dims)(x)
            return nn.leaky_relu(nn.GroupNorm(num_groups=1)(x))

        two = (2,) * self.dims
        top = block(x, 2)
        middle = block(nn.max_pool(top, two, two), 3)
        bottom = block(nn.avg_pool(middle, two, two), 4)
        up = nn.ConvTranspose(3, two, two)(bottom)
        middle = block(jnp.concatenate([middle, up], axis=-1), 3)
        shape = (*top.shape[:-1], middle.shape[-1])
        up = nn.Conv(2, (1,) * self.dims)(jax.image.resize(middle, shape, "linear"))
        return nn.Conv(1, (1,) * self.dims)(block(jnp.concatenate([top, up], axis=-1), 2))


class EcgNet(nn.Module):
    """1-D: strides, dilation, depthwise-separable convolutions, both kinds of pooling."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (7,), (2,))(x))
        x = nn.max_pool(x, (3,), (2,), "SAME")
        x = nn.relu(nn.GroupNorm(num_groups=2)(nn.Conv(4, (3,), kernel_dilation=(2,))(x)))
        x = nn.Conv(8, (5,), feature_group_count=4)(x)
        x = nn.relu(nn.Conv(6, (1,))(x))
        x = nn.avg_pool(x, (2,), (2,))
        return nn.Dense(2)(x.mean(axis=1))


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        return nn.Dense(2)(x)


class Network(NamedTuple):
    """A model, the shape of one example, and the operations in it, as the rewrite reports them."""

    model: Model
    shape: tuple[int, ...]
    operations: dict[str, int]


NETWORKS = {
    "resnet-group": Network(
        models.from_linen(ResNet("group")), (12, 12, 3), {"convolution": 6, "max-pooling": 1}
    ),
    "resnet-batch": Network(
        models.from_linen(ResNet("batch")), (12, 12, 3), {"convolution": 6, "max-pooling": 1}
    ),
    "nnx-resnet-batch": Network(
        models.from_nnx(NnxResNet), (12, 12, 3), {"convolution": 6, "max-pooling": 1}
    ),
    "nnx-resnet-group": Network(
        models.from_nnx(
            lambda rngs: NnxResNet(
                rngs, norm=lambda n, rngs: nnx.GroupNorm(n, num_groups=2, rngs=rngs)
            )
        ),
        (12, 12, 3),
        {"convolution": 6, "max-pooling": 1},
    ),
    "unet-2d": Network(
        models.from_linen(UNet(2)),
        (8, 4, 1),
        {"convolution": 8, "max-pooling": 1, "sum-pooling": 1},
    ),
    "unet-3d": Network(
        models.from_linen(UNet(3)),
        (4, 4, 4, 1),
        {"convolution": 8, "max-pooling": 1, "sum-pooling": 1},
    ),
    "ecg": Network(
        models.from_linen(EcgNet()),
        (24, 2),
        {"convolution": 4, "max-pooling": 1, "sum-pooling": 1},
    ),
    "mlp": Network(models.from_linen(Mlp()), (4, 2), {}),
}
BATCH_SIZE = 3


def make_batch(network: Network, dtype=np.float32, key=0) -> Batch:
    """A minibatch with one padding example; targets have the shape of the outputs."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((BATCH_SIZE, *network.shape)), dtype)
    mask = jnp.arange(BATCH_SIZE) < BATCH_SIZE - 1
    return Batch({"x": x}, mask, jnp.asarray(BATCH_SIZE - 1.0, dtype), jax.random.key(key))


def loss(model: Model):
    """`(variables, batch) -> (losses [batch], state)`: squares of outputs, in their order."""

    def losses(variables, batch):
        outputs, state = model.apply(variables, batch, True)
        outputs = outputs.reshape(BATCH_SIZE, -1)
        weights = jnp.linspace(0.5, 1.5, outputs.shape[1], dtype=outputs.dtype)
        return jnp.sum((weights[None] * (outputs - 1)) ** 2, axis=1), state

    return losses
