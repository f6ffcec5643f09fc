"""Requirements, registry, counters, errors."""

import pytest
import torch
from torch import Generator, nn

import scidiff.posterior as posteriors
from scidiff.errors import NumericalError
from scidiff.inference import Likelihood, Posterior
from scidiff.noise import GaussianNoise, PoissonNoise
from scidiff.operators.mask import Mask
from scidiff.posterior import DPS, MMPS
from scidiff.samplers import DPMSolver, Heun

MASK = Mask(torch.arange(40).reshape(5, 8) % 3 > 0)


class Network(nn.Module):
    """A tiny random denoiser with weights that want gradients."""

    affine = True
    shape = (2, 5, 8)

    def __init__(self):
        super().__init__()
        g = Generator().manual_seed(0)
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        with torch.no_grad():
            for w in self.parameters():
                w.copy_(0.2 * torch.randn(w.shape, generator=g))
        self.calls = 0

    def denoise(self, u, sigma):
        self.calls += 1
        return (u + 0.3 * torch.tanh(self.conv(u))) / (1 + sigma**2)

    def decode(self, u):
        return u

    def encode(self, x):
        return x


class Counting:
    """A linear operator that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return MASK(x)

    def adjoint(self, y):
        return MASK.adjoint(y)


class Square:
    def __call__(self, x):
        return x.square()


class Hidden:
    """A forward model under no_grad: its gradient is silently absent."""

    def __call__(self, x):
        with torch.no_grad():
            return MASK(x)

    def adjoint(self, y):
        return MASK.adjoint(y)


class ByHand(Hidden):
    differentiable = False


def posterior(operator=MASK, noise=None, prior=None):
    y = operator(torch.randn(1, 2, 5, 8, generator=Generator().manual_seed(1)))
    return Posterior(prior or Network(), Likelihood(operator, noise or GaussianNoise(0.1), y))


@pytest.mark.parametrize("steps", [1, 7])
def test_dps_counters_are_exact(steps):
    prior, operator = Network(), Counting()
    problem = posterior(operator, prior=prior)
    operator.calls = 0
    cost = DPS(steps=steps)(problem, 3, Generator()).cost
    assert cost.as_dict() == {
        "denoiser": steps, "denoiser_vjp": steps, "operator": steps + 1, "operator_vjp": steps
    }  # fmt: skip
    assert prior.calls == steps and operator.calls == steps + 1


@pytest.mark.parametrize("method", [MMPS(DPMSolver(6)), MMPS(Heun(7), solver="gmres", iterations=3)], ids=repr)
def test_mmps_counters_are_exact(method):
    prior, operator = Network(), Counting()
    problem = posterior(operator, prior=prior)
    operator.calls = 0
    ensemble = method(problem, 3, Generator())
    cost, calls = ensemble.cost, method.sampler.calls
    assert cost.denoiser == prior.calls == calls <= 7
    assert calls <= cost.denoiser_vjp <= calls * method.iterations
    assert cost.operator_vjp == cost.denoiser_vjp
    assert cost.operator == operator.calls == calls + cost.denoiser_vjp  # residuals and products
    assert 1 <= ensemble.diagnostics["iterations"] <= method.iterations


@pytest.mark.parametrize("method", [MMPS(DPMSolver(4)), DPS(steps=4)], ids=repr)
def test_no_gradients_for_weights(method):
    prior = Network()
    ensemble = method(posterior(prior=prior), 2, Generator())
    assert all(w.grad is None and w.requires_grad for w in prior.parameters())
    assert not ensemble.samples.requires_grad


def test_mmps_iterations_shrink_at_small_noise():
    seen = {}
    method = MMPS(DPMSolver(24))

    def watch(step, steps, sigma, u):
        seen[step] = sigma

    ensemble = method(posterior(), 2, Generator().manual_seed(0), callback=watch)
    assert list(seen) == list(range(1, 25)) and seen[24] == 0
    assert ensemble.diagnostics["iterations"] < 0.7 * method.iterations


@pytest.mark.parametrize("method", [MMPS(DPMSolver(5)), DPS(steps=5)], ids=repr)
def test_operator_without_gradient(method):
    with pytest.raises(TypeError, match="no gradient flows through Hidden.*differentiable = False"):
        method(posterior(Hidden()), 2, Generator())
    by_adjoint = method(posterior(ByHand()), 2, Generator().manual_seed(0)).samples
    by_autograd = method(posterior(), 2, Generator().manual_seed(0)).samples
    assert torch.allclose(by_adjoint, by_autograd, atol=1e-5)


def test_prior_without_gradient():
    class Frozen(Network):
        @torch.no_grad()
        def denoise(self, u, sigma):
            return super().denoise(u, sigma)

    with pytest.raises(TypeError, match="no gradient flows through Frozen.denoise"):
        MMPS(DPMSolver(3))(posterior(prior=Frozen()), 2, Generator())


def test_requirements_name_what_would_work():
    assert MMPS(DPMSolver(3))(posterior(Square()), 2, Generator()).samples.shape == (2, 1, 2, 5, 8)
    assert DPS(steps=3)(posterior(Square()), 2, Generator()).samples.shape == (2, 1, 2, 5, 8)

    class BlackBox(Square):
        differentiable = False

    with pytest.raises(TypeError, match=r"DPS needs gradient; .* would work: .*enkg"):
        DPS()(posterior(BlackBox()))
    counts = Posterior(Network(), Likelihood(MASK, PoissonNoise(), MASK(torch.ones(1, 2, 5, 8))))
    assert DPS(steps=3)(counts, 2, Generator()).samples.shape == (2, 1, 2, 5, 8)

    class Unknown:
        def sample(self, z, generator=None):
            return z

        def log_prob(self, y, z):
            return -(y - z).abs().flatten(1).sum(1)

    laplace = Posterior(Network(), Likelihood(MASK, Unknown(), MASK(torch.ones(1, 2, 5, 8))))
    with pytest.raises(TypeError, match=r"DPS needs variance; .* would work: .*lgd"):
        DPS()(laplace)


def test_not_finite_names_method_and_level():
    class Broken(Network):
        def denoise(self, u, sigma):
            return super().denoise(u, sigma) * (torch.nan if sigma < 1 else 1)

    with pytest.raises(NumericalError, match="MMPS: DPMSolver: .*noise level"):
        MMPS(DPMSolver(8))(posterior(prior=Broken()), 2, Generator())
    with pytest.raises(NumericalError, match="DPS: DDPM: .*noise level"):
        DPS(steps=20)(posterior(prior=Broken()), 2, Generator())


def test_registry():
    assert posteriors.names()[0] == "mmps" and "dps" in posteriors.names()
    assert posteriors.get("mmps", iterations=3, steps=10) == MMPS(DPMSolver(10, stochastic=True), iterations=3)
    assert posteriors.get("dps", zeta=0.3) == DPS(zeta=0.3)
    assert posteriors.get("pnpdm", steps=9).sampler.steps == 9
    rows = {row["name"]: row for row in posteriors.table()}
    assert rows["mmps"]["requires"] == "gradient, variance" and rows["dps"]["summary"]
    with pytest.raises(ValueError, match="unknown sampler 'gibbs'; samplers are mmps, .*dps"):
        posteriors.get("gibbs")
    assert rows["mmps"]["requires"] == "gradient, variance" and rows["dps"]["summary"]
    with pytest.raises(ValueError, match="unknown sampler 'nuts'; samplers are mmps, .*dps"):
        posteriors.get("nuts")
    with pytest.raises(TypeError, match="dps has no parameter step; did you mean 'steps'. it has"):
        posteriors.get("dps", step=3)
    for wrong in ("abc", 2.5, True, [3]):
        with pytest.raises(TypeError, match="mmps: steps must be a whole number"):
            posteriors.get("mmps", steps=wrong)
    with pytest.raises(TypeError, match="mmps: warm must be true or false"):
        posteriors.get("mmps", warm=1)
    assert posteriors.get("mmps", tolerance=0).tolerance == 0


@pytest.mark.parametrize("call, message", [
    (lambda: MMPS(iterations=0), "iterations"),
    (lambda: MMPS(solver="lu"), "gmres, cg, scaled, direct"),
    (lambda: MMPS(tolerance=1.0), "tolerance"),
    (lambda: DPS(zeta=-1.0), "zeta"),
    (lambda: DPS(steps=2000), "1000"),
    (lambda: MMPS()(posterior(), batch_size=0), "batch_size"),
])  # fmt: skip
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_run_is_described():
    ensemble = MMPS(DPMSolver(3))(posterior(), [4, 2], Generator().manual_seed(0))
    d = ensemble.diagnostics
    assert d["members"] == [4, 2] and isinstance(d["seed"], int)
    assert d["sampler"].startswith("MMPS(sampler=DPMSolver(steps=3, schedule=log_linear")
    assert {"iterations", "residual", "breakdowns"} <= set(d)
