"""Latent samplers: closed forms behind a linear decoder, a grid behind a bent one, and what they report."""

import math
import warnings

import pytest
import torch
from torch import Generator

from scidiff.benchmark.exact import linear_latent
from scidiff.benchmark.nonlinear import GridPosterior
from scidiff.benchmark.scores import scores
from scidiff.inference import Cost, Likelihood, Posterior
from scidiff.noise import GaussianNoise
from scidiff.operators import LinearMap
from scidiff.posterior import DAPS, DPS, MMPS, PSLD, LatentDAPS, LatentDPS, ReSample
from scidiff.posterior.base import Run
from scidiff.posterior.consistency import Objective, adamw, conjugate_gradients, lbfgs, least_squares
from scidiff.posterior.latent import pixels
from scidiff.posterior.local import perturb_and_solve, randomised
from scidiff.posterior.psld import bounded
from scidiff.posterior.resample import largest_chi2, resampled
from scidiff.priors import GaussianPrior, LatentPrior, LinearAutoencoder
from scidiff.rng import Streams
from scidiff.samplers.base import level

F64 = torch.float64
SHAPE, D, K, N = (1, 3, 4), 12, 4, 6


def random(*shape, seed=0):
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=F64)


class Opaque(LinearAutoencoder):
    """The same maps without the word that they are affine: every nonlinear path must give the linear answer."""

    affine = False


def latent(kind=LinearAutoencoder, scale=1.0, loc=0.0):
    ae = kind(loc + scale * random(*SHAPE, seed=1), random(K, *SHAPE, seed=2), scale**2 * torch.linspace(2, 0.1, K))
    return LatentPrior(ae, ae.code_prior())


def problem(kind=LinearAutoencoder, batch=1, std=0.2):
    prior, A = latent(kind), LinearMap(random(N, D, seed=3), SHAPE)
    g = Generator().manual_seed(4)
    y = A(prior.sample(batch, g)) + std * random(batch, N, seed=5)
    return Posterior(prior, Likelihood(A, GaussianNoise(std), y))


def exact(posterior):
    (part,) = posterior.likelihoods
    return posterior.prior.condition(part.operator, part.noise, part.y)


def at_work(posterior, members=3):
    return Run(posterior.tile(members), Streams(7, range(members), posterior.batch), Cost())


# The law


@pytest.mark.parametrize("method", [ReSample(), LatentDAPS()], ids=["resample", "latent_daps"])
def test_exact_behind_a_linear_decoder(method):
    posterior = problem()
    found = compare(posterior, method, 500)
    assert found["mean_error"] < 3 / 500**0.5 and 0.93 < found["trace_ratio"] < 1.07
    assert 0.88 < found["coverage"] < 0.92


def compare(posterior, method, members):
    samples = method(posterior, members, Generator().manual_seed(0)).samples[:, 0]
    law = exact(posterior if isinstance(posterior.prior.autoencoder, LinearAutoencoder) else problem())
    u = law.encode(samples).flatten(1)
    v = (law.variance / law.scale**2).flatten()
    cdf = law.marginal_cdf(samples)
    return {
        "mean_error": float((u.mean(0).square() / v).mean().sqrt()),
        "trace_ratio": float(u.var(0).sum() / v.sum()),
        "coverage": float(((cdf > 0.05) & (cdf < 0.95)).to(F64).mean()),
    }


def test_published_forms_are_what_the_pages_say():
    """Too narrow (ReSample: one point per step), too wide (LatentDAPS), beside the derived ones on one problem."""
    problem = linear_latent(0)

    def trial(method):
        samples = method(problem.posterior, 128, Generator().manual_seed(0)).samples[:, 0]
        found = scores(problem, samples, Generator().manual_seed(1))
        return found["mean_error"][0], found["trace_ratio"][0]

    resample, daps, ours = trial(ReSample(form="published")), trial(LatentDAPS(width="published")), trial(ReSample())
    assert ours[0] < 0.15 and 0.93 < ours[1] < 1.07  # 128 exact draws: 0.088
    assert resample[1] < 0.8 and resample[0] > 1.5 * ours[0]
    assert daps[1] > 1.1
    annealed, plain = trial(PSLD()), trial(PSLD(gamma=0.0))
    assert plain[0] == pytest.approx(trial(LatentDPS(form="annealed"))[0], abs=0.05)  # without gluing the same
    assert annealed[0] < plain[0]


def test_white_width_is_exact_for_white_codes():
    ae = LinearAutoencoder(random(*SHAPE, seed=1), random(K, *SHAPE, seed=2))
    plain = problem()
    posterior = Posterior(LatentPrior(ae, ae.code_prior()), plain.likelihood)
    for method in (ReSample(width="white"), LatentDAPS(width="white")):
        found = compare(posterior, method, 300)
        assert found["mean_error"] < 3 / 300**0.5 and 0.9 < found["trace_ratio"] < 1.1
        cost = method(posterior, 2, Generator().manual_seed(0)).cost
        assert cost.denoiser_vjp == 0 and cost.denoiser == 50


def test_unaware_of_linearity_the_answer_is_the_same():
    """Gauss-Newton on a decoder that does not say that it is linear: one step is the closed form."""
    aware, unaware = (
        ReSample(steps=6, tolerance=0.0)(problem(kind, 2), 3, Generator().manual_seed(1)).samples
        for kind in (LinearAutoencoder, Opaque)
    )
    assert torch.allclose(aware, unaware, rtol=1e-6, atol=1e-8)
    published = [
        ReSample(form="published", steps=12, every=2)(problem(kind, 2), 3, Generator().manual_seed(1)).samples
        for kind in (LinearAutoencoder, Opaque)
    ]
    assert torch.allclose(*published, rtol=1e-4, atol=1e-5)


def test_descent_finds_the_draw_of_the_closed_form():
    """The three optimisers of the derived form minimise one function."""
    posterior = problem()
    run, c, width = at_work(posterior), random(3, K, seed=8), 0.37
    n = random(3, N, seed=9)
    f = Objective(run.measurement, None, n, c, width, 1e-10)
    A = torch.stack([run.measurement.forward(e.expand(3, K)) for e in torch.eye(K, dtype=F64)], 2)[0]
    right = A.mT @ (run.measurement.residual(c) + n).mT
    wanted = c + torch.linalg.solve(A.mT @ A + torch.eye(K, dtype=F64) / width, right).mT
    assert torch.allclose(lbfgs(f, c, 100), wanted, atol=1e-6)
    low, start = f.value(wanted)[0], f.value(c)[0]
    value = f.value(adamw(f, c, 300, 0.05, 0.0))[0]
    assert bool((value >= low).all()) and bool((value - low < 0.05 * (start - low)).all())
    _, _, gradient = f.gradient(wanted)
    assert float(gradient.abs().max()) < 1e-8


def test_randomised_is_perturb_and_solve_on_linear_measurements():
    C = random(K, K, seed=10)
    C = C @ C.mT / K
    c, x = random(3, K, seed=11), random(3, K, seed=12)
    found = randomised(at_work(problem(Opaque)), c, lambda g: g @ C, x, 1, 20, 0.0)
    assert torch.allclose(found, perturb_and_solve(at_work(problem()), c, lambda g: g @ C, 20, 0.0), atol=1e-8)


class Bent:
    """Three numbers that depend on two codes in a curved way, and the first code itself."""

    stride, affine = 1, False

    def latent_shape(self, shape, /):
        return (2,)

    def decode(self, z):
        a, b = z[:, 0], z[:, 1]
        return torch.stack([a + a.square() / 6, b + 0.3 * a * b, torch.tanh(a - b), a], 1)

    def encode(self, x):
        return torch.stack([x[:, 3], x[:, 1] / (1 + 0.3 * x[:, 3])], 1)


def bent():
    codes = GaussianPrior(torch.tensor([0.5, -0.2]), torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=F64))
    prior = LatentPrior(Bent(), codes)
    operator = LinearMap(torch.tensor([[1.0, 0.5, 0.3, 0.0], [0.2, -0.6, 1.0, 0.0]]), (4,))
    noise, g = GaussianNoise(0.3), Generator().manual_seed(0)
    y = noise.sample(operator(prior.sample(1, g)), g)
    law = GridPosterior(Posterior(codes, Likelihood(lambda z: operator(prior.autoencoder.decode(z)), noise, y)))
    return Posterior(prior, Likelihood(operator, noise, y)), law


@pytest.mark.parametrize(
    "method",
    [ReSample(), ReSample(width="white"), ReSample(width="white", optimiser="lbfgs"), LatentDAPS(), MMPS()],
    ids=["resample", "white", "lbfgs", "latent_daps", "mmps"],
)
def test_bent_decoder_against_the_grid(method):
    """Pixel samplers work behind a decoder as well, through its products."""
    posterior, law = bent()
    ensemble = method(posterior, 256, Generator().manual_seed(1))
    z = posterior.prior.autoencoder.encode(ensemble.samples[:, 0]).to(F64)
    error = ((z.mean(0) - law.mean).square() / law.variance).mean().sqrt()
    assert float(error) < 0.06 + 2 / 256**0.5
    assert 0.75 < float(z.var(0).sum() / law.variance.sum()) < 1.25


@pytest.mark.parametrize("method", [DPS(30), DAPS(steps=5), PSLD(steps=10), PSLD(form="published", steps=20)], ids=repr)
def test_others_run_behind_a_bent_decoder(method):
    samples = method(bent()[0], 4, Generator().manual_seed(1)).samples
    assert samples.shape == (4, 1, 4) and bool(torch.isfinite(samples).all())


# Data consistency


def test_derived_draws_misfit_the_data_as_the_truth_does():
    """chi2 of a posterior draw is that of the truth: one on average over data, here of 150 fields."""
    plain = linear_latent(0).posterior
    (part,) = plain.likelihoods
    g = Generator().manual_seed(5)
    y = part.noise.sample(part.operator(plain.prior.sample(150, g)), g)
    posterior = Posterior(plain.prior, Likelihood(part.operator, part.noise, y))
    for method in (ReSample(), ReSample(form="published", steps=50)):
        ensemble = method(posterior, 1, Generator().manual_seed(1))
        chi2 = posterior.likelihoods[0].chi2(ensemble.samples[0])
        assert 0.9 < float(chi2.mean()) < 1.1
        assert ensemble.diagnostics["chi2"] == pytest.approx(float(chi2.mean()), rel=1e-4)
        assert ensemble.diagnostics["unreached"] == 0
    assert float(chi2.max()) < 1.01  # the published form ends every row at the noise level


@pytest.mark.parametrize("kind", [LinearAutoencoder, Opaque])
def test_optimisers_end_at_the_noise_level_row_by_row(kind):
    posterior = problem(kind, batch=2)
    run, start = at_work(posterior), 3 * random(6, K, seed=13)
    plain = Objective(run.measurement)
    start[1] = lbfgs(Objective(run.measurement, None, tolerance=1e-12), start, 200)[1]  # below the noise already
    first = plain.value(start)[1]
    best = plain.value(lbfgs(Objective(run.measurement, None, tolerance=1e-12), start, 200))[1]
    assert float(first[1]) < 1 and float(best.max()) < 0.97  # six data, four codes: the noise level can be reached
    level_set = conjugate_gradients(plain, start, 12, 3)
    near = torch.where(torch.arange(6)[:, None] == 1, start, level_set + 0.05 * random(6, K, seed=14))
    for found in (level_set, lbfgs(plain, start, 200), adamw(plain, near, 300, 5e-3, 0.0)):
        chi2 = plain.value(found)[1]
        assert torch.equal(found[1], start[1])  # was there
        others = torch.arange(6) != 1
        assert float(chi2[others].min()) > 0.96 and float(chi2[others].max()) < 1.005
    alone = Posterior(posterior.prior, Likelihood(*_parts(posterior), posterior.likelihoods[0].y[:1]))
    one = lbfgs(Objective(at_work(alone, 1).measurement), start[:1], 200)
    assert torch.allclose(one, lbfgs(plain, start, 200)[:1], atol=1e-10)


def _parts(posterior):
    return posterior.likelihoods[0].operator, posterior.likelihoods[0].noise


def test_least_squares_goes_to_the_sphere_and_to_the_minimum():
    run = at_work(problem(), 1)
    near = run.measurement.linearise(random(1, K, seed=14))
    A = torch.stack([near.forward(e[None])[0] for e in torch.eye(K, dtype=F64)], 1)
    r = near.residual
    best = torch.linalg.lstsq(A, r.mT).solution.mT
    assert torch.allclose(least_squares(near, torch.zeros(1, 1, dtype=F64), 50), best, atol=1e-8)
    stop = 0.5 * (r.norm() + (r - best @ A.mT).norm())
    w = least_squares(near, stop.reshape(1, 1), 50)
    assert float((r - w @ A.mT).norm()) == pytest.approx(float(stop), rel=1e-9)


def test_optimisation_that_does_not_arrive_is_reported():
    posterior = problem()
    (part,) = posterior.likelihoods
    far = Posterior(posterior.prior, Likelihood(part.operator, part.noise, part.y + 50 * random(1, N, seed=15)))
    for method in (ReSample(steps=10), ReSample(form="published", steps=20)):
        with pytest.warns(UserWarning, match="do not explain the data to the noise"):
            diagnostics = method(far, 3, Generator().manual_seed(0)).diagnostics
        assert diagnostics["unreached"] == 1 and diagnostics["chi2"] > 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ReSample(steps=10)(posterior, 3, Generator().manual_seed(0)).diagnostics["unreached"] == 0
    for n in (2, 24, 1000):  # one draw in three million
        tail = torch.special.gammaincc(torch.tensor(n / 2, dtype=F64), torch.tensor(n * largest_chi2(n) / 2, dtype=F64))
        assert 1e-8 < float(tail) < 2e-6


def test_resampling_is_the_papers_product_of_gaussians():
    r"""Published in :math:`\bar\alpha` and :math:`x_t = u / \sqrt{1 + \sigma^2}`."""
    a, b, gamma = 1.7, 0.9, 40.0
    u, z, noise = random(1, 5, seed=1), random(1, 5, seed=2), random(1, 5, seed=3)
    alpha = {s: 1 / (1 + s**2) for s in (a, b)}
    s2 = gamma * (1 - alpha[b]) / (1 - alpha[a]) * (1 - alpha[a] / alpha[b])
    x = u * math.sqrt(alpha[b])
    mean = (s2 * math.sqrt(alpha[b]) * z + (1 - alpha[b]) * x) / (s2 + 1 - alpha[b])
    std = math.sqrt(s2 * (1 - alpha[b]) / (s2 + 1 - alpha[b]))
    published = (mean + std * noise) / math.sqrt(alpha[b])
    assert torch.allclose(resampled(u, z, noise, a, b, gamma), published)


# PSLD


def test_gluing_steps_come_nearer_to_a_code_that_stays_its_own():
    """Steps along the gradient of |K d|^2 / 2 come nearer to d = 0 however steep K; those of length gamma do not."""
    d = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for steep in (0.1, 1.0, 300.0):
        K = steep * torch.randn(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        e, gradient = d @ K.T, d @ K.T @ K
        length = bounded(0.3, e, gradient)
        assert ((d - length[:, None] * gradient).norm(dim=1) < d.norm(dim=1)).all()
        if steep < 1:
            assert torch.equal(length, torch.full_like(length, 0.3))
        if steep > 1:
            assert ((d - 0.3 * gradient).norm(dim=1) > 1e3 * d.norm(dim=1)).all()
            along = torch.linspace(0, 2, 41, dtype=torch.float64)[:, None, None] * length[:, None] * gradient
            assert ((d - along).norm(dim=2).argmin(0) == 20).all()


def test_gluing_is_that_of_the_paper_with_orthonormal_rows():
    """Little noise and A A' = I: e = D - E(A'y + (I - A'A) G(D)); its gradient by differentiating just that."""
    Q = torch.linalg.qr(random(D, N, seed=16)).Q.mT
    prior, y = latent(), random(2, N, seed=17)
    posterior = Posterior(prior, Likelihood(LinearMap(Q, SHAPE), GaussianNoise(1e-5), y))
    run, method = at_work(posterior, 1), PSLD(tolerance=1e-12)
    seen = pixels(run, prior.decode(random(2, K, seed=18)), prior.decode(torch.zeros(2, K, dtype=F64)))
    u, D0, w, near = method.forward(run, seen, random(2, K, seed=19), level(y, 0.8))
    e, back = method.glue(run, seen, D0, w, near)

    def by_hand(D_):
        x = prior.decode(D_).flatten(1)
        glued = y @ Q + x - x @ Q.mT @ Q
        return D_ - prior.encode(glued.reshape(-1, *SHAPE))

    assert torch.allclose(e, by_hand(D0.detach()), atol=1e-6)
    d = D0.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(by_hand(d).square().sum() / 2, d)
    assert torch.allclose(method.through_decoder(w, D0, back(e)) + e, wanted, atol=1e-6)


# What they count, and what they refuse


def test_calls_of_decoder_and_encoder_are_those_made():
    class Watched(LinearAutoencoder):
        made = (0, 0)

        def decode(self, z):
            self.made = (self.made[0] + len(z), self.made[1])
            return super().decode(z)

        def encode(self, x):
            self.made = (self.made[0], self.made[1] + len(x))
            return super().encode(x)

    for method in (ReSample(steps=4), ReSample(form="published", steps=12, every=2), PSLD(steps=4)):
        posterior = problem(Watched, 2)
        watched = posterior.prior.autoencoder
        watched.made = (0, 0)
        found = method(posterior, 3, Generator().manual_seed(0)).diagnostics
        probes = watched.made[0] - round(found["decoder"] * 6)
        assert 0 <= probes <= 3 and watched.made[1] == round(found["encoder"] * 6)
        assert found["decoder_vjp"] > 0


def test_weights_get_no_gradient():
    posterior = problem(Opaque)
    ae = posterior.prior.autoencoder
    ae.factor = torch.nn.Parameter(ae.factor)
    for method in (ReSample(steps=3), PSLD(steps=3), LatentDPS(steps=3), LatentDAPS(steps=3, moves=2)):
        assert not method(posterior, 2, Generator().manual_seed(0)).samples.requires_grad
        assert ae.factor.grad is None


def test_operator_on_the_wrong_space():
    posterior = problem()
    y = posterior.likelihoods[0].y
    on_codes = LinearMap(random(N, K, seed=3), (K,))
    with pytest.raises(ValueError, match=r"does not take fields of shape \(1, 3, 4\).*takes states.*not on codes"):
        ReSample()(Posterior(posterior.prior, Likelihood(on_codes, GaussianNoise(0.2), y)), 2)
    other_grid = LinearMap(random(N, 20, seed=3), (1, 4, 5))
    with pytest.raises(ValueError, match="for one grid"):
        PSLD()(Posterior(posterior.prior, Likelihood(other_grid, GaussianNoise(0.2), y)), 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ReSample(form="both"), "'derived' or 'published'"),
        (lambda: ReSample(optimiser="adamw"), "width='white'"),
        (lambda: ReSample(optimiser="sgd"), "'cg', 'lbfgs' or 'adamw'"),
        (lambda: ReSample(pixel=0.9, latent=0.5), "pixel <= latent"),
        (lambda: ReSample(every=0), "every must be at least 1"),
        (lambda: ReSample(steps=0), "steps must be at least 1"),
        (lambda: PSLD(zeta=0.1), "belongs to form='published'"),
        (lambda: PSLD(gamma=-1.0), "must not be negative"),
        (lambda: LatentDPS(form="annealed", zeta=1.0), "belongs to form='published'"),
        (lambda: LatentDAPS(width="wide"), "'exact', 'white' or 'published'"),
    ],
)
def test_wrong_parameters_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()
