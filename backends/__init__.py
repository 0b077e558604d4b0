"""What differs between array libraries: which there are, their devices and dtypes, arrays from and to NumPy, and fusing a step."""

from collections.abc import Iterable
from functools import cache

from xopt.backends._array_api_strict import ArrayAPIStrictBackend
from xopt.backends._cupy import CuPyBackend
from xopt.backends._dask import DaskBackend
from xopt.backends._dpnp import DPNPBackend
from xopt.backends._jax import JAXBackend
from xopt.backends._mlx import MLXBackend
from xopt.backends._mparray import MPArrayBackend
from xopt.backends._ndonnx import NDONNXBackend
from xopt.backends._numpy import NumPyBackend
from xopt.backends._torch import TorchBackend
from xopt.backends.base import Availability, Backend
from xopt.backends.fused.step import fuse
from xopt.backends.names import unknown
from xopt.backends.onnx_export import to_onnx
from xopt.backends.optax import as_optax
from xopt.program import LawError

__all__ = ["BACKENDS", "Availability", "Backend", "LawError", "as_optax", "available", "fuse", "get", "to_onnx"]

BACKENDS: dict[str, type[Backend]] = {
    "numpy": NumPyBackend,
    "array_api_strict": ArrayAPIStrictBackend,
    "torch": TorchBackend,
    "jax": JAXBackend,
    "cupy": CuPyBackend,
    "mlx": MLXBackend,
    "dpnp": DPNPBackend,
    "dask": DaskBackend,
    "ndonnx": NDONNXBackend,
    "mparray": MPArrayBackend,
}


def available(names: Iterable[str] | None = None) -> dict[str, Availability]:
    """For each backend: its version and devices, or why it cannot be used here.

    Parameters
    ----------
    names
        Of ``BACKENDS``. Default: all. Their libraries are imported where they are installed.

    Raises
    ------
    ValueError
        For an unknown name, with those that there are.
    """
    return {name: _availability(name) for name in (BACKENDS if names is None else names)}


def get(name: str, device: str | None = None) -> Backend:
    """A backend by name.

    Parameters
    ----------
    name
        One of ``BACKENDS``.
    device
        One of its devices, such as ``"cuda:0"``. Default: the first.

    Raises
    ------
    ValueError
        For an unknown name or device, with those that there are.
    RuntimeError
        Where the backend cannot be used here, with the reason.
    """
    found = _availability(name)
    if found.reason is not None:
        msg = f"backend {name} cannot be used: {found.reason}; xopt.backends.available() says what can"
        raise RuntimeError(msg)
    if device is not None and device not in found.devices:
        msg = f"unknown device {device!r} of backend {name}; there are {', '.join(found.devices)}"
        raise ValueError(msg)
    return BACKENDS[name](device or found.devices[0])


@cache
def _availability(name: str) -> Availability:
    if name not in BACKENDS:
        raise ValueError(unknown("backend", name, BACKENDS))
    backend = BACKENDS[name]
    version = backend.installed_version()
    if version is None:
        return Availability(name, None, (), f"not installed: pip install {backend.distributions[0]}")
    try:
        devices = backend.devices()
    except Exception as error:  # noqa: BLE001 - a broken library must not break the others
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return Availability(name, version, (), f"installed, but import fails: {line}")
    return Availability(name, version, devices, None if devices else f"installed, no {backend.needs}")
