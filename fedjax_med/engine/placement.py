"""Where simulated hospitals run: one device, `pmap`, or a mesh over one or many hosts.

The engine writes one function of what every device shares ("replicated") and what each device
holds of its own ("per device", with a leading axis `[devices]` on the host that is gone inside).
A placement turns it into a compiled program; nothing else knows how many devices there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.lane_executor import Axes

Device = Any  # jax.Device, which type checkers take for a variable
Role = Literal["replicated", "per_device"]
CLIENT_AXIS, BATCH_AXIS, EXPERIMENT_AXIS = "clients", "batch", "experiments"


@dataclasses.dataclass(frozen=True)
class Placement:
    """One way of laying clients over devices; made by the functions of this module.

    Attributes:
      kind: how the program is mapped.
      devices: the devices, in order, `num_devices * num_splits` of them.
      num_devices: devices the clients are spread over.
      num_splits: devices that share each client's minibatch.
    """

    kind: Literal["one_device", "pmap", "mesh"]
    devices: tuple[Device, ...]
    num_devices: int = 1
    num_splits: int = 1

    @property
    def local_device(self) -> Device:
        """One of the devices that belongs to this process."""
        return next(d for d in self.devices if d.process_index == jax.process_index())

    @property
    def mesh(self) -> Mesh:
        """The devices as a mesh `[clients, batch]`."""
        grid = np.asarray(self.devices).reshape(self.num_devices, self.num_splits)
        return Mesh(grid, (CLIENT_AXIS, BATCH_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))

    def axes(self, experiments: bool) -> Axes:
        """The names the executor reduces over."""
        return Axes(
            devices=None if self.kind == "one_device" else CLIENT_AXIS,
            splits=BATCH_AXIS if self.num_splits > 1 else None,
            experiments=EXPERIMENT_AXIS if experiments else None,
            num_devices=self.num_devices,
            num_splits=self.num_splits,
        )

    def describe(self) -> str:
        """A short text for logs and reports."""
        kind = self.devices[0].device_kind
        splits = f" x {self.num_splits} per minibatch" if self.num_splits > 1 else ""
        return f"{self.kind}, {self.num_devices}{splits} ({kind})"

    def put(self, tree: PyTree, role: Role) -> PyTree:
        """Moves host arrays to the devices; `per_device` leaves are `[devices, ...]`."""
        if self.kind == "one_device":
            return jax.device_put(tree, self.devices[0])
        if self.kind == "pmap" and role == "replicated":
            tree = jax.tree.map(
                lambda x: np.broadcast_to(x, (self.num_devices, *np.shape(x))), tree
            )
            role = "per_device"
        spec = PartitionSpec(CLIENT_AXIS) if role == "per_device" else PartitionSpec()
        sharding = NamedSharding(self.mesh, spec)

        def put(x):
            if jax.process_count() == 1:
                return jax.device_put(x, sharding)
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(put, tree)

    def fetch(self, tree: PyTree, role: Role) -> PyTree:
        """Copies to host arrays, without the copies that `put` made; waits for the devices."""
        if self.kind == "pmap" and role == "replicated":
            # The first device's part as it lies there: slicing `x[0]` would be a computation, and
            # wait for whatever the devices have been given since.
            return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], tree)

        def fetch(x):
            if isinstance(x, jax.Array) and not x.is_fully_addressable:
                if x.is_fully_replicated:
                    x = x.addressable_data(0)
                else:
                    return multihost_utils.process_allgather(x, tiled=True)
            return np.asarray(x)

        return jax.tree.map(fetch, tree)

    def jit(
        self,
        fn: Callable[..., tuple],
        inputs: Sequence[Role],
        outputs: Sequence[Role],
        donate: Sequence[int] = (),
    ) -> Any:
        """Compiles `fn` for the devices.

        Args:
          fn: takes and returns tuples of pytrees as one device sees them.
          inputs: role of each argument.
          outputs: role of each result.
          donate: arguments whose buffers the results may take over.

        Returns:
          A function with `.lower(*args).compile()`.
        """
        if self.kind == "pmap":
            return jax.pmap(
                fn, axis_name=CLIENT_AXIS, devices=self.devices, donate_argnums=tuple(donate)
            )

        def squeezed(*args):
            args = (
                jax.tree.map(lambda x: jnp.squeeze(x, 0), arg) if role == "per_device" else arg
                for role, arg in zip(inputs, args, strict=True)
            )
            results = fn(*args)
            return tuple(
                jax.tree.map(lambda x: x[None], result) if role == "per_device" else result
                for role, result in zip(outputs, results, strict=True)
            )

        squeezed.__name__ = fn.__name__  # what profiles call the program
        if self.kind == "one_device":
            return jax.jit(squeezed, donate_argnums=tuple(donate))

        def spec(role: Role) -> PartitionSpec:
            return PartitionSpec(CLIENT_AXIS) if role == "per_device" else PartitionSpec()

        mapped = jax.shard_map(
            squeezed,
            mesh=self.mesh,
            in_specs=tuple(spec(role) for role in inputs),
            out_specs=tuple(spec(role) for role in outputs),
            # What is replicated here comes out of a reduction over the clients, which the
            # checker cannot follow through loops with a trip count of each device's own.
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=tuple(donate))


def _take_devices(count: int, devices: Sequence[Device] | None) -> tuple[Device, ...]:
    present = tuple(jax.devices() if devices is None else devices)
    if not 1 <= count <= len(present):
        raise ValueError(
            f"{count} devices were asked for, but this machine has {len(present)}; "
            f"allowed are 1 to {len(present)}."
        )
    return present[:count]


def one_device(device: Device | None = None) -> Placement:
    """All clients on one device; no collectives at all."""
    return Placement("one_device", (device or jax.local_devices()[0],))


def pmap(num_devices: int | None = None) -> Placement:
    """Clients spread over the devices of this host with `jax.pmap`.

    Raises:
      ValueError: if there are fewer than `num_devices` devices.
    """
    local = jax.local_devices()
    count = len(local) if num_devices is None else num_devices
    return Placement("pmap", _take_devices(count, local), count)


def mesh(num_devices: int | None = None, *, splits: int = 1) -> Placement:
    """Clients spread over a mesh, on one host or on all hosts of `jax.distributed`.

    Args:
      num_devices: devices that the clients are spread over; all there are (over `splits`) if
        None.
      splits: devices that share every minibatch, for hospitals too big for one device. Each of
        them holds the whole data of its clients.

    Raises:
      ValueError: if there are fewer than `num_devices * splits` devices, or `splits` < 1.
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}.")
    count = len(jax.devices()) // splits if num_devices is None else num_devices
    return Placement("mesh", _take_devices(count * splits, None), count, splits)
