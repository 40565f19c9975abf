"""Starts Ray on this machine, or joins a cluster that runs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INSTALL = "python -m pip install -r requirements-cluster.txt"

_SETTINGS = {  # which Ray reads when it is imported or starts
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers for cuda:1 are told so by that name
    "RAY_USAGE_STATS_ENABLED": "0",
    # workers that die are told by this pack; Ray would write of them between the results
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}


class ClusterError(ValueError):
    """There are no workers to be had, or none is left."""


def import_ray() -> Any:
    """The package ray. Raises ClusterError where it is missing."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ClusterError(
            f"several devices need the package ray ({error}); install it with: {INSTALL}"
        ) from error


@contextlib.contextmanager
def connected(address: str | None, *, cpus: int | None = None) -> Iterator[Any]:
    """A context with Ray running: the package.

    Args:
        address: of a running cluster ("10.0.0.1:6379", "auto"); None starts Ray on this machine
            for as long as the context lasts.
        cpus: cores that Ray may count with on this machine; None: those that it has.

    Where Ray runs in this process already, that is used, and left running.

    Raises ClusterError where there is no cluster at that address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        options |= {"num_cpus": cpus, "include_dashboard": False}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        ray.init(
            **options,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # where the pack lies at the same place, its workers need not have it installed
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"at {address}" if address else "on this machine"
        text = " ".join(str(error).split())
        raise ClusterError(f"Ray cannot be reached {where}: {text}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
