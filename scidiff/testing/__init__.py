r"""Checks for your own parts: operators, priors, noises and samplers.

Each check raises an AssertionError that holds the numbers when the part is wrong, and returns what it measured when it
is right. All are deterministic for a given generator.

- `check_adjoint`: :math:`\mathrm{Re}\langle A x, y\rangle = \mathrm{Re}\langle x, A^\ast y\rangle`, and linearity.
- `check_vjp`: gradients against finite differences; finds forward models whose gradient is silently zero.
- `check_operator`: all that an operator of scidiff must keep, the two above among it.
- `check_batch_independence`: a row's answer does not depend on the other rows.
- `check_unit_independence`: the same problem in other units gives the same ensemble in those units.
- `check_posterior`: an ensemble against the exact posterior: mean, total variance, coverage.
"""

from scidiff.testing.conformance import OperatorReport, check_operator
from scidiff.testing.operators import check_adjoint, check_batch_independence, check_vjp
from scidiff.testing.posterior import (
    ExactPosterior,
    PosteriorReport,
    check_posterior,
    check_unit_independence,
    compare_with_exact,
)

__all__ = [
    "ExactPosterior",
    "OperatorReport",
    "PosteriorReport",
    "check_adjoint",
    "check_batch_independence",
    "check_operator",
    "check_posterior",
    "check_unit_independence",
    "check_vjp",
    "compare_with_exact",
]
