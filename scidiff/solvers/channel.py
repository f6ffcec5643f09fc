r"""Incompressible flow through a channel past obstacles, in the plane.

.. math:: \partial_t v + \nabla \cdot (v v) = -\nabla p + \nu \Delta v, \qquad \nabla \cdot v = 0

in :math:`[0, L] \times [0, H]`: the profile :math:`4 U(t) y (H - y) / H^2` flows in at x = 0, walls at y = 0 and H do
not slip, the flow leaves at x = L with pressure zero and without change along x. Velocities live on the faces of square
cells of side h, pressures in their centres; differences are central and conserve momentum.

A step is the third-order Runge-Kutta method of Shu and Osher whose every stage is projected on flows without
divergence that are zero inside obstacles. The projection P without obstacles is solved directly: the Laplacian is
diagonal in the product of the eigenvectors of its two one-dimensional parts. Obstacles add a force f on their faces S
with :math:`S P S^T f = - S P v`, whose matrix is inverted once: the projection is orthogonal and nothing leaks in.

**Order and limits.** Second order in h, third in time (measured without obstacles). Obstacles are staircases of cells:
near them the error is of first order in h. Stable to about 1.5 cells per step (`courant`), and for
:math:`\nu \Delta t \le h^2 / 4`; viscous layers thinner than a cell are not resolved.

References:
    Harlow and Welch, Numerical calculation of time-dependent viscous incompressible flow of fluid with free surface,
    Physics of Fluids 8, 1965 (faces and centres). Chorin, Numerical solution of the Navier-Stokes equations,
    Mathematics of Computation 22, 1968 (projection). Shu and Osher, Efficient implementation of essentially
    non-oscillatory shock-capturing schemes, Journal of Computational Physics 77, 1988 (the stages). Buzbee, Dorr,
    George and Golub, The direct solution of the discrete Poisson equation on irregular regions, SIAM Journal on
    Numerical Analysis 8, 1971 (forces on faces). Schaefer and Turek, Benchmark computations of laminar flow around a
    cylinder, 1996 (channel, profile, drag of a disc).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Channel", "Flow", "discs"]

Flow = tuple[Tensor, Tensor]
"""Velocities on faces: along x (..., H, W + 1), along y (..., H + 1, W)."""


class Channel:
    r"""The equations of the module on H x W cells.

    Arguments:
        cells: Cells (H, W) across and along the channel, at least 4 each; W / H is the ratio of its sides.
        height: :math:`H`, the side across.
        viscosity: :math:`\nu`.
        inflow: :math:`U(t)`, the speed in the middle of the profile.
        solid: Functions of places (y, x) that are true inside obstacles, one per row of a batch: what `discs` gives;
            None for an empty channel.
        dtype: Real type.
    """

    def __init__(
        self,
        cells: tuple[int, int] = (32, 172),
        height: float = 0.41,
        viscosity: float = 1e-3,
        inflow: Callable[[float], float] = lambda t: 1.0,
        solid: Callable[[Tensor, Tensor], Tensor] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        rows, columns = self.cells = (int(cells[0]), int(cells[1]))
        if min(self.cells) < 4 or not height > 0 or not viscosity > 0:
            raise ValueError(
                f"expected at least 4 cells each way, height and viscosity above 0, got {cells}, {height}, {viscosity}."
            )
        self.h, self.viscosity, self.inflow, self.dtype = height / rows, float(viscosity), inflow, dtype
        y, x = ((torch.arange(2 * n + 1, dtype=dtype) * self.h / 2) for n in self.cells)
        self.y, self.x = y[1::2], x[1::2]
        """Centres of cells, (H,) and (W,)."""
        self.profile = 4 * self.y * (height - self.y) / height**2
        ones = torch.ones((), dtype=dtype)
        self.free_x = self.free_y = self.free = ones
        self._faces: Tensor | None = None
        if solid is not None:
            self.free_x = (~solid(y[1::2, None], x[None, ::2])).to(dtype)
            self.free_y = (~solid(y[::2, None], x[None, 1::2])).to(dtype)
            self.free = (~solid(y[1::2, None], x[None, 1::2])).to(dtype)
            """1 in the fluid, 0 in obstacles: at faces along x, faces along y, centres."""
        # Laplacian of one dimension: no flow through walls and inflow, pressure zero on the outflow face.
        across, along = (
            torch.diag(torch.full((n,), -2.0, dtype=torch.float64))
            + torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
            + torch.diag(torch.ones(n - 1, dtype=torch.float64), -1)
            for n in self.cells
        )
        across[0, 0] = across[-1, -1] = along[0, 0] = -1
        along[-1, -1] = -3
        (ly, self._vy), (lx, self._vx) = torch.linalg.eigh(across), torch.linalg.eigh(along)
        self._scaled = self.h**2 / (ly[:, None] + lx)
        self._vy, self._vx, self._scaled = (m.to(dtype) for m in (self._vy, self._vx, self._scaled))
        if solid is not None:
            self._obstruct()

    def _obstruct(self) -> None:
        """Finds the faces in obstacles, padded to one number for all rows, and inverts their matrix."""
        height, width = self.cells
        free_x, free_y = (f.reshape(-1, *f.shape[-2:]) for f in (self.free_x, self.free_y))
        blocked = [
            torch.cat([a.flatten(), b.flatten()]).eq(0).nonzero()[:, 0] for a, b in zip(free_x, free_y, strict=True)
        ]
        most = max(1, max(len(b) for b in blocked))
        size = height * (width + 1) + (height + 1) * width
        self._faces = torch.full((len(blocked), most), size)
        self._inverse = torch.zeros(len(blocked), most, most, dtype=self.dtype)
        for row, places in enumerate(blocked):
            count = len(places)
            self._faces[row, :count] = places
            unit = torch.zeros(count, size, dtype=self.dtype)
            unit[torch.arange(count), places] = 1
            flow, _ = self.project(self._flow(unit))
            matrix = torch.cat([part.flatten(1) for part in flow], 1)[:, places]
            self._inverse[row, :count, :count] = torch.linalg.pinv(matrix, rtol=1e-8, hermitian=True)

    def _flow(self, numbers: Tensor) -> Flow:
        height, width = self.cells
        u, v = numbers.split([height * (width + 1), (height + 1) * width], -1)
        return u.unflatten(-1, (height, width + 1)), v.unflatten(-1, (height + 1, width))

    def rest(self, rows: int = 1) -> Flow:
        """No flow anywhere."""
        height, width = self.cells
        zeros = torch.zeros(rows, height, width + 1, dtype=self.dtype)
        return zeros, torch.zeros(rows, height + 1, width, dtype=self.dtype)

    def divergence(self, flow: Flow) -> Tensor:
        """In every cell, (..., H, W)."""
        u, v = flow
        return (u.diff(dim=-1) + v.diff(dim=-2)) / self.h

    def _poisson(self, source: Tensor) -> Tensor:
        """The potential with Laplacian ``source``."""
        return self._vy @ (self._scaled * (self._vy.mT @ source @ self._vx)) @ self._vx.mT

    def project(self, flow: Flow) -> tuple[Flow, Tensor]:
        """The nearest flow without divergence, and the potential whose gradient was taken away."""
        p = self._poisson(self.divergence(flow))
        u, v = flow[0].clone(), flow[1].clone()
        u[..., 1:-1] -= p.diff(dim=-1) / self.h
        u[..., -1] += 2 * p[..., -1] / self.h
        v[..., 1:-1, :] -= p.diff(dim=-2) / self.h
        return (u, v), p

    def change(self, flow: Flow) -> Flow:
        """Minus transport plus friction, zero where the velocity is prescribed."""
        u, v = flow
        h = self.h
        uc, vc = (u[..., 1:] + u[..., :-1]) / 2, (v[..., 1:, :] + v[..., :-1, :]) / 2
        # Ghosts: walls and inflow mirror with the sign changed, the outflow repeats.
        tall = torch.cat([-u[..., :1, :], u, -u[..., -1:, :]], -2)
        wide = torch.cat([-v[..., :1], v, v[..., -1:]], -1)
        uv = (tall[..., 1:, :] + tall[..., :-1, :]) / 2 * (wide[..., 1:] + wide[..., :-1]) / 2
        long = torch.cat([u, u[..., -1:]], -1)
        uu = torch.cat([uc, u[..., -1:]], -1).square()
        du = -uu.diff(dim=-1) / h - uv.diff(dim=-2)[..., 1:] / h
        du = du + self.viscosity / h**2 * (long.diff(n=2, dim=-1) + tall.diff(n=2, dim=-2)[..., 1:])
        dv = -vc.square().diff(dim=-2) / h - uv.diff(dim=-1)[..., 1:-1, :] / h
        dv = dv + self.viscosity / h**2 * (v.diff(n=2, dim=-2) + wide.diff(n=2, dim=-1)[..., 1:-1, :])
        return pad(du, (1, 0)), pad(dv, (0, 0, 1, 1))

    def _admit(self, flow: Flow, speed: float) -> tuple[Flow, Tensor]:
        """The nearest flow without divergence, none in obstacles and the given one at the inflow; the potential."""
        u, v = flow
        u = torch.cat([(speed * self.profile)[:, None].expand(*u.shape[:-1], 1), u[..., 1:]], -1)
        flow, potential = self.project((u * self.free_x, v * self.free_y))
        if self._faces is None:
            return flow, potential
        numbers = pad(torch.cat([part.flatten(-2) for part in flow], -1), (0, 1))
        faces = self._faces.expand(len(numbers), -1)
        force = -(self._inverse @ numbers.gather(1, faces)[..., None])[..., 0]
        flow, more = self.project(self._flow(numbers.scatter_add(1, faces, force)[:, :-1]))
        return (flow[0] * self.free_x, flow[1] * self.free_y), potential + more

    def step(self, flow: Flow, t: float, dt: float) -> Flow:
        """The flow at t + dt."""

        def euler(w: Flow) -> Flow:
            du, dv = self.change(w)
            return w[0] + dt * du, w[1] + dt * dv

        def mean(a: Flow, b: Flow, share: float) -> Flow:
            return (1 - share) * a[0] + share * b[0], (1 - share) * a[1] + share * b[1]

        first, _ = self._admit(euler(flow), self.inflow(t + dt))
        second, _ = self._admit(mean(flow, euler(first), 1 / 4), self.inflow(t + dt / 2))
        return self._admit(mean(flow, euler(second), 2 / 3), self.inflow(t + dt))[0]

    def pressure(self, flow: Flow, t: float, dt: float = 1e-4) -> Tensor:
        """Pressure over density in every cell at time t; ``dt`` is for the change of the inflow."""
        return self._admit(self.change(flow), (self.inflow(t + dt) - self.inflow(t)) / dt)[1]

    def courant(self, flow: Flow, dt: float) -> Tensor:
        """Cells that the flow crosses in a step, largest of each row."""
        return (flow[0].abs().amax((-2, -1)) + flow[1].abs().amax((-2, -1))) * dt / self.h

    def drag(self, flow: Flow, t: float) -> Tensor:
        """Force along x per density on all obstacles and depth one, (...): momentum and pressure that go in two cells
        after the inflow less what comes out two cells before the outflow, less friction at the walls between.
        """
        u = (flow[0][..., 1:] + flow[0][..., :-1]) / 2
        through = (self.pressure(flow, t) + u.square()).sum(-2) * self.h
        walls = 2 * self.viscosity * (u[..., 0, 2:-2] + u[..., -1, 2:-2]).sum(-1)
        return through[..., 2] - through[..., -3] - walls

    def centred(self, flow: Flow) -> Tensor:
        """Velocity along x and y in the centres, (..., 2, H, W), zero in obstacles."""
        u, v = flow
        both = (u[..., 1:] + u[..., :-1]) / 2, (v[..., 1:, :] + v[..., :-1, :]) / 2
        return torch.stack([part * self.free for part in both], -3)


def discs(centres: Tensor, radii: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether places lie in one of several discs.

    Arguments:
        centres: (..., n, 2) as (y, x).
        radii: (..., n).

    Returns:
        Function of y (H, 1) and x (1, W) with answers (..., H, W).
    """

    def inside(y: Tensor, x: Tensor) -> Tensor:
        square = (y - centres[..., 0, None, None]).square() + (x - centres[..., 1, None, None]).square()
        return (square < radii[..., None, None].square()).any(-3)

    return inside
