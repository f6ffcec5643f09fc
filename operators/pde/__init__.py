"""Forward models that solve a partial differential equation."""

from scidiff.operators.pde.darcy import Darcy
from scidiff.operators.pde.elliptic import Helmholtz, Poisson, sine_basis
from scidiff.operators.pde.navier_stokes import NavierStokes

__all__ = ["Darcy", "Helmholtz", "NavierStokes", "Poisson", "sine_basis"]
