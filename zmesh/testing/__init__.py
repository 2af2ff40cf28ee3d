"""What tests of meshes need: a simulator on a virtual clock, and real nodes in one process."""

from zmesh.testing.mesh import Mesh, eventually
from zmesh.testing.simulator import Simulator

__all__ = ["Mesh", "Simulator", "eventually"]
