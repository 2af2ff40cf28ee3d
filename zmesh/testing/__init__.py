"""Tools for tests of meshes: a simulator on a virtual clock, and real nodes in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmesh.testing.mesh import Mesh, eventually
    from zmesh.testing.rebuilt import load_bundle
    from zmesh.testing.simulator import Simulator

__all__ = ["Mesh", "Simulator", "eventually", "load_bundle"]


def __getattr__(name: str) -> Any:
    """Load what is used, when it is used: pytest imports this package in every run (see `fixtures`)."""
    if name == "Simulator":
        from zmesh.testing import simulator

        return simulator.Simulator
    if name == "load_bundle":
        from zmesh.testing import rebuilt

        return rebuilt.load_bundle
    if name in __all__:
        from zmesh.testing import mesh

        return getattr(mesh, name)
    raise AttributeError(f"module 'zmesh.testing' has no attribute {name!r}")
