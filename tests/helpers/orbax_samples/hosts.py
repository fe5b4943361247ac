"""Save arrays that two processes share, as hosts of a cluster do; `save` starts both here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

sys.path.insert(0, str(Path(__file__).parents[1]))

from orbax_trees import HOSTS, shared_arrays

CUTS = {"grid": ("hosts", "devices"), "rows": ("hosts", None), "columns": (None, ("hosts", "devices")), "whole": ()}


def save(folder: Path) -> None:
    """Fill `folder` with a checkpoint of `shared_arrays` for each layout in HOSTS."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, address, str(folder)]
    hosts = [subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE) for rank in range(2)]
    for host in hosts:
        _, said = host.communicate(timeout=120)
        assert host.returncode == 0, said.decode()


def host(address: str, folder: Path, rank: int) -> None:
    """One of two hosts with three devices each."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, rank)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 3), ("hosts", "devices"))
    tree = {
        name: jax.make_array_from_callback(
            array.shape, NamedSharding(mesh, PartitionSpec(*CUTS[name])), lambda index, array=array: array[index]
        )
        for name, array in shared_arrays().items()
    }
    for name, options in HOSTS.items():
        ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(folder / name, args=ocp.args.PyTreeSave(tree))


if __name__ == "__main__":
    host(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
