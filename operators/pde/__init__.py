"""Forward models that solve a partial differential equation."""

from scidiff.operators.pde.elliptic import Helmholtz, Poisson, sine_basis

__all__ = ["Helmholtz", "Poisson", "sine_basis"]
