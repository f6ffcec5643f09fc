r"""State estimation along time: what a trajectory was, given observations of some of its states.

Trajectories are (B, C, L, \*grid): channels first, then L states in a row. Exact answers for linear Gaussian chains,
priors of windows composed into priors of long trajectories, a streaming sampler for records of any length, and the
classical methods (ensemble Kalman filters, particle smoother, variational analysis) as baselines.
"""

from __future__ import annotations

from scidiff.lazy import lazy_exports

_EXPORTS: dict[str, str] = {
    "AtTimes": "scidiff.assimilation.observations",
    "EnKF": "scidiff.assimilation.ensemble",
    "ETKF": "scidiff.assimilation.ensemble",
    "FourDVar": "scidiff.assimilation.variational",
    "KalmanAnswer": "scidiff.assimilation.kalman",
    "LinearGaussianChain": "scidiff.assimilation.chain",
    "Observations": "scidiff.assimilation.observations",
    "ParticleSmoother": "scidiff.assimilation.particles",
    "StateSpace": "scidiff.assimilation.state_space",
    "StreamingAssimilation": "scidiff.assimilation.streaming",
    "ThreeDVar": "scidiff.assimilation.variational",
    "TrajectoryPrior": "scidiff.assimilation.trajectory",
    "WindowMixture": "scidiff.assimilation.windows",
    "gaspari_cohn": "scidiff.assimilation.ensemble",
    "kalman_smoother": "scidiff.assimilation.kalman",
    "on_grid": "scidiff.assimilation.observations",
    "periodic_distance": "scidiff.assimilation.ensemble",
}
__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
