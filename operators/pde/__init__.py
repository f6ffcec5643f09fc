"""Forward models that solve a differential equation."""

from scidiff.operators.pde.advection_diffusion import AdvectionDiffusion, Heat
from scidiff.operators.pde.burgers import Burgers
from scidiff.operators.pde.darcy import Darcy
from scidiff.operators.pde.elliptic import Helmholtz, Poisson, sine_basis
from scidiff.operators.pde.kuramoto_sivashinsky import KuramotoSivashinsky
from scidiff.operators.pde.lorenz import Lorenz63, Lorenz96
from scidiff.operators.pde.navier_stokes import NavierStokes
from scidiff.operators.pde.reaction_diffusion import AllenCahn, GrayScott, ReactionDiffusion
from scidiff.operators.pde.shallow_water import ShallowWater
from scidiff.operators.pde.wave import VariableWave, Wave

__all__ = [
    "AdvectionDiffusion",
    "AllenCahn",
    "Burgers",
    "Darcy",
    "GrayScott",
    "Heat",
    "Helmholtz",
    "KuramotoSivashinsky",
    "Lorenz63",
    "Lorenz96",
    "NavierStokes",
    "Poisson",
    "ReactionDiffusion",
    "ShallowWater",
    "VariableWave",
    "Wave",
    "sine_basis",
]
