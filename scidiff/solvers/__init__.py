"""Differential equations on torch tensors: batched, differentiable, without instruments or data.

Simulators of `scidiff.datasets` and forward models of `scidiff.operators.pde` share them.
"""

from __future__ import annotations

from scidiff.lazy import lazy_exports

_EXPORTS: dict[str, str] = {
    "BoxLaplacian": "scidiff.solvers.laplace",
    "Burgers": "scidiff.solvers.burgers",
    "Channel": "scidiff.solvers.channel",
    "KuramotoSivashinsky": "scidiff.solvers.kuramoto_sivashinsky",
    "NavierStokes": "scidiff.solvers.navier_stokes",
    "Periodic": "scidiff.solvers.periodic",
    "ReactionDiffusion": "scidiff.solvers.reaction_diffusion",
    "Semilinear": "scidiff.solvers.stepping",
    "ShallowWater": "scidiff.solvers.shallow_water",
    "SpringMesh": "scidiff.solvers.spring_mesh",
    "StochasticTransport": "scidiff.solvers.stochastic_transport",
    "Transition": "scidiff.solvers.transition",
    "advance": "scidiff.solvers.stepping",
    "divergence": "scidiff.solvers.darcy",
    "etdrk4": "scidiff.solvers.stepping",
    "ifrk4": "scidiff.solvers.stepping",
    "pressure": "scidiff.solvers.darcy",
    "cole_hopf": "scidiff.solvers.burgers",
    "lorenz63": "scidiff.solvers.lorenz",
    "lorenz96": "scidiff.solvers.lorenz",
    "rk4": "scidiff.solvers.stepping",
    "solve": "scidiff.solvers.darcy",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
