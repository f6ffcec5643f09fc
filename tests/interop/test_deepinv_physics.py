"""Every physics of deepinv as an operator: its own numbers, an adjoint, gradients, independent rows, no memory."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Generator

deepinv = pytest.importorskip("deepinv")

from deepinv import physics as P  # noqa: E402

from scidiff.inference import Posterior  # noqa: E402
from scidiff.interop.deepinv_noise import noise_from_deepinv  # noqa: E402
from scidiff.interop.deepinv_physics import from_deepinv, likelihood_from_deepinv, to_deepinv  # noqa: E402
from scidiff.linalg import Dense  # noqa: E402
from scidiff.noise import GaussianNoise, PoissonNoise  # noqa: E402
from scidiff.operators import Convolution, LinearMap, Mask  # noqa: E402
from scidiff.posterior import get  # noqa: E402
from scidiff.priors import GaussianPrior  # noqa: E402
from scidiff.testing import check_adjoint, check_batch_independence, check_posterior, check_vjp  # noqa: E402

F64 = torch.float64
FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "deepinv_operators.py"


def load():
    spec = importlib.util.spec_from_file_location("deepinv_operators", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["deepinv_operators"] = module
    spec.loader.exec_module(module)
    return module


catalogue = load()
CASES = catalogue.cases()
REFUSED = {"Tomography, back-projection"}
WRONG_ADJOINT = {"SequentialMRI", "CompressiveSpectralImaging"}
ONE_BY_ONE = {"SequentialMRI", "SinglePhotonLidar"}


def state(physics):
    """Everything a physics holds, as text of numbers: buffers and tensors of all its parts."""
    from scidiff.interop.deepinv_frozen import _parts

    found = []
    for part in _parts(physics):
        for name, value in sorted({**vars(part), **vars(part).get("_buffers", {})}.items()):
            if isinstance(value, torch.Tensor):
                found.append((type(part).__name__, name, value.detach().clone()))
            elif isinstance(value, int | float | str | bool):
                found.append((type(part).__name__, name, value))
    return found


def same(a, b):
    return len(a) == len(b) and all(
        x[:2] == y[:2] and (torch.equal(x[2], y[2]) if isinstance(x[2], torch.Tensor) else x[2] == y[2])
        for x, y in zip(a, b, strict=True)
    )


def build(name):
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            physics = case.make()
        except ImportError as error:
            pytest.skip(str(error).partition(".")[0])
        return case, physics, from_deepinv(physics, case.shape, **case.options)


def fields(operator, rows=3, dtype=F64, seed=5, positive=True):
    dtype = dtype.to_complex() if operator._complex else dtype
    x = torch.randn(rows, *operator.shape, dtype=dtype, generator=Generator().manual_seed(seed))
    return x if operator._complex or not positive else x.abs() + 0.1


def test_every_class_has_a_case():
    assert set(catalogue.classes()) <= set(CASES)


def test_the_table_of_the_page_is_that_of_the_program(root):
    """Names and what was found; a class that cannot be tried here may have been tried where the page was written."""
    text = (root / "docs" / "deepinv.md").read_text(encoding="utf-8")
    lines = text.split("<!-- table:begin -->\n")[1].split("\n<!-- table:end")[0].splitlines()
    shown = {line.split("|")[1].strip(" `"): line for line in lines[2:]}
    assert list(shown) == list(CASES)
    for name in ("Inpainting", "SequentialMRI", "CompressiveSpectralImaging", "Tomography, back-projection"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert catalogue.row(name, CASES[name]) == shown[name]


@pytest.mark.parametrize("name", [n for n in CASES if n not in REFUSED])
def test_as_an_operator(name):
    _, physics, operator = build(name)
    physics.noise_model = P.ZeroNoise()
    before = state(physics)
    assert operator.row_by_row == (name in ONE_BY_ONE)

    # the same numbers, field by field, in the physics' own precision; no memory; type and shape
    own = operator._frozen.precision
    x = fields(operator, dtype=own)
    z = operator(x)
    assert torch.equal(z, operator(x)) and z.shape[1:] == operator.measurement_shape and z.dtype.to_real() == own
    assert same(before, state(physics))
    with torch.no_grad():
        plain = torch.cat([operator.pack(physics.A(operator.unpack_field(row))) for row in x.split(1)])
    size = float(z.abs().max())
    torch.testing.assert_close(z, plain, rtol=1e-5, atol=2e-6 * size)

    # the other precision: type kept, numbers alike
    other = F64 if own == torch.float32 else torch.float32
    assert operator(fields(operator, dtype=other)).dtype.to_real() == other
    torch.testing.assert_close(
        operator(fields(operator, dtype=own)).to(torch.complex128),
        operator(fields(operator, dtype=own).to(other.to_complex() if x.is_complex() else other)).to(torch.complex128),
        rtol=1e-3, atol=1e-3 * size,
    )  # fmt: skip

    # rows; the largest type in which the class works
    double = F64 if F64 in operator._answers else torch.float32
    contrast = 1.0 if name in ("Scattering", "SinglePhotonLidar", "Haze") else 30.0
    check_batch_independence(
        operator, fields(operator, dtype=double), tolerance=1e-3 if name == "Scattering" else 1e-4, contrast=contrast
    )
    if hasattr(operator, "adjoint"):
        assert (operator.adjoint_from == "gradient") == (name in WRONG_ADJOINT)
        dtype = double.to_complex() if operator._complex else double
        exact = 1e-7 if double == F64 else 2e-5
        assert check_adjoint(operator, operator.shape, dtype=dtype, tolerance=exact) <= exact
    assert operator.differentiable
    if double == F64:
        kinked = 1e-6 if name != "Scattering" else 1e-3
        assert check_vjp(operator, 0.1 * fields(operator, 2), probes=1, tolerance=kinked) <= kinked
    if callable(getattr(operator, "svd", None)):
        U, s, V = operator.svd()
        torch.testing.assert_close(U(s * V.adjoint(x)), z, rtol=1e-4, atol=1e-5 * size)
        c = torch.randn(2, len(s), dtype=own, generator=Generator().manual_seed(1))
        torch.testing.assert_close(V.adjoint(V(c)), c, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(U.adjoint(U(c)), c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in CASES if n not in REFUSED])
def test_there_and_back(name):
    """scidiff -> deepinv -> scidiff: the same numbers, still linear if it was."""
    _, _, operator = build(name)
    physics = to_deepinv(operator, operator.shape, complex_fields=operator._complex)
    assert isinstance(physics, P.LinearPhysics) == hasattr(operator, "adjoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = from_deepinv(physics, operator.shape, complex_fields=operator._complex)
    x = fields(operator, dtype=operator._frozen.precision)
    z = operator(x)
    torch.testing.assert_close(back(x), z, rtol=1e-5, atol=1e-6 * float(z.abs().max()))
    if hasattr(operator, "adjoint"):
        y = z - 0.5 * z.flip(-1)
        torch.testing.assert_close(back.adjoint(y), operator.adjoint(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_physics_without_any_adjoint_is_refused(name):
    with pytest.raises(ValueError, match="A_adjoint is not the adjoint of A .* neither is the gradient"):
        from_deepinv(CASES[name].make(), CASES[name].shape)
    with pytest.warns(UserWarning, match="differs from finite differences"):
        from_deepinv(CASES[name].make(), CASES[name].shape, linear=False)


def test_a_wrong_adjoint_is_replaced_and_named():
    physics = P.LinearPhysics(A=lambda x: x.roll(1, -1), A_adjoint=lambda y: y.roll(1, -1))
    with pytest.warns(UserWarning, match="LinearPhysics.A_adjoint is not the adjoint of A .* gradient"):
        operator = from_deepinv(physics, (1, 4, 6))
    assert check_adjoint(operator, (1, 4, 6)) < 1e-12


def test_an_adjoint_serves_as_gradient_where_none_flows():
    def through_numpy(shift):
        return lambda x: torch.as_tensor(x.detach().numpy()).roll(shift, -1)

    operator = from_deepinv(P.LinearPhysics(A=through_numpy(1), A_adjoint=through_numpy(-1)), (1, 4, 6))
    assert check_vjp(operator, fields(operator, 2)) < 1e-6


def test_the_copy_is_of_the_moment():
    """Later changes of the physics, and calls that change it, do not reach the operator."""
    physics = P.Inpainting((1, 3, 4), mask=torch.ones(1, 3, 4))
    operator = from_deepinv(physics, (1, 3, 4))
    x = fields(operator)
    physics.update_parameters(mask=torch.zeros(1, 1, 3, 4))
    assert torch.equal(operator(x), x) and not physics.A(x).any()

    class Remembering(P.Physics):
        def A(self, x, **kwargs):
            self.calls = getattr(self, "calls", 0) + 1
            self.register_buffer("last", x)
            return x * self.calls

    remembering = Remembering()
    remembering.calls = 1
    operator = from_deepinv(remembering, (1, 3, 4))
    assert torch.equal(operator(x), 2 * x) and torch.equal(operator(x), 2 * x)


def test_noise_never_enters_an_operator():
    """Phase retrieval calls the noisy forward of the physics inside it."""
    inner = P.CompressedSensing(9, (1, 2, 3), dtype=torch.cfloat, noise_model=P.GaussianNoise(1.0))
    operator = from_deepinv(P.PhaseRetrieval(inner), (1, 2, 3), complex_fields=True)
    x = fields(operator)
    torch.testing.assert_close(operator(x), inner.A(x.to(torch.complex64)).abs().square().to(F64), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="is not its noise on A"):
        likelihood_from_deepinv(P.PhaseRetrieval(inner), operator(x), (1, 2, 3), complex_fields=True)


def test_errors_say_what_to_do():
    with pytest.raises(TypeError, match="expected a deepinv.physics.Physics, got Identity"):
        from_deepinv(torch.nn.Identity(), (1, 2, 3))
    mri = P.MRI(mask=torch.ones(4, 6))
    with pytest.raises(ValueError, match=r"MRI does not accept fields of shape \(1, 3, 4, 6\)"):
        from_deepinv(mri, (3, 4, 6))
    with pytest.raises(ValueError, match=r"complex_channels needs fields \(1, ...\)"):
        from_deepinv(mri, (2, 4, 6), complex_channels=True)
    operator = from_deepinv(mri, (1, 4, 6), complex_channels=True)
    with pytest.raises(TypeError, match="wrapped for complex fields, got real"):
        operator(torch.zeros(1, 1, 4, 6))
    with pytest.raises(ValueError, match=r"expected a field \(B, 1, 4, 6\), got \(1, 1, 4, 5\)"):
        operator(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"y has shape \(1, 2, 4, 5\), but MRI measures"):
        operator.pack(torch.zeros(1, 2, 4, 5))
    with pytest.raises(ValueError, match="draws random numbers"):
        from_deepinv(P.Physics(A=lambda x: x + torch.randn(x.shape)), (1, 2, 3))
    with pytest.raises(ValueError, match="affine, not linear"):
        from_deepinv(P.LinearPhysics(A=lambda x: x + 1, A_adjoint=lambda y: y), (1, 2, 3))
    two = P.Inpainting((1, 2, 3), mask=torch.ones(2, 1, 2, 3))
    with pytest.raises(ValueError, match="its parameters hold a batch"):
        from_deepinv(two, (1, 2, 3))


def test_units_are_kept_on_the_way_there_and_back():
    physics = P.Denoising(P.GaussianNoise(0.1))
    operator = from_deepinv(physics, (1, 2, 3), field_units="1/mm", data_units="1")
    again = from_deepinv(to_deepinv(operator, (1, 2, 3)), (1, 2, 3))
    assert (again.field_units, again.data_units) == ("1/mm", "1")


def test_likelihood_leaves_out_what_sees_nothing():
    seen = catalogue.mask(1, 8, 10)
    physics = P.Inpainting((1, 8, 10), mask=seen, noise_model=P.GaussianNoise(0.2))
    x = torch.randn(1, 1, 8, 10, generator=Generator().manual_seed(1))
    y = physics(x)
    part = likelihood_from_deepinv(physics, y, (1, 8, 10))
    assert part.y.shape == (1, int(seen.sum())) and part.linear and part.noise.std == pytest.approx(0.2)
    assert torch.equal(part.operator(x), Mask(seen > 0)(x)) and len(part.operator.svd().s) == int(seen.sum())
    assert 0.5 < float(part.chi2(x)) < 1.6
    check_adjoint(part.operator, (1, 8, 10))


def test_likelihood_of_a_stack_and_of_counts():
    k = catalogue.blur_kernel()
    loud, quiet = P.Blur(k, noise_model=P.GaussianNoise(0.5)), P.Denoising(P.GaussianNoise(0.1))
    stack = P.stack(loud, quiet)
    x = torch.rand(2, 1, 5, 6, generator=Generator().manual_seed(1))
    part = likelihood_from_deepinv(stack, stack(x), (1, 5, 6))
    parts = [GaussianNoise(0.5), GaussianNoise(0.1)]
    y = stack(x)
    expected = sum(n.log_prob(v, a.A(x)) for n, v, a in zip(parts, y, (loud, quiet), strict=True))
    torch.testing.assert_close(likelihood_from_deepinv(stack, y, (1, 5, 6)).log_prob(x), expected, rtol=1e-5, atol=1e-4)
    assert part.y.shape == (2, 12 + 30)

    counting = P.Denoising(P.PoissonNoise(0.25, normalize=False))
    y = counting(x)
    part = likelihood_from_deepinv(counting, y, (1, 5, 6))
    assert isinstance(part.noise, PoissonNoise) and torch.equal(part.y, 0.25 * y) and torch.equal(y, y.round())


@pytest.mark.parametrize(
    "physics",
    [
        P.SpatialUnwrapping(noise_model=P.GaussianNoise(0.1)),
        P.Denoising(P.GaussianNoise(0.1), sensor_model=lambda y: y.clamp(0, 0.5)),
        P.Inpainting((1, 2, 3), mask=0.5 * torch.ones(1, 2, 3), noise_model=P.GaussianNoise(0.1)),
    ],
    ids=["noise before A", "sensor", "weighted noise"],
)
def test_measurements_that_are_not_noise_on_A_are_refused(physics):
    with pytest.raises(ValueError, match="is not its noise on A"):
        likelihood_from_deepinv(physics, torch.rand(1, 1, 2, 3), (1, 2, 3))


def test_complex_noise_is_per_real_component():
    """deepinv's noise on complex tensors has half the variance in each component; on channels all of it."""
    model = P.GaussianNoise(0.6, rng=Generator().manual_seed(1))
    n = model(torch.zeros(1, 200_000, dtype=torch.complex64))
    law = noise_from_deepinv(model, complex_data=True)
    assert float(n.real.std()) == pytest.approx(law.std, rel=0.01) and law.std == pytest.approx(0.6 / 2**0.5)
    mri = P.MRI(mask=torch.ones(4, 6), noise_model=P.GaussianNoise(0.6))
    part = likelihood_from_deepinv(mri, mri(torch.zeros(1, 2, 4, 6)), (1, 4, 6), complex_channels=True)
    assert part.noise.std == pytest.approx(0.6) and part.y.is_complex()


def test_a_sampler_on_a_physics_reaches_the_exact_posterior():
    """MMPS on deepinv's blurred and thinned field; the exact posterior from the matrix of its own A."""
    noise = P.GaussianNoise(0.1, rng=Generator().manual_seed(3))
    physics = P.Downsampling((1, 4, 6), filter=catalogue.blur_kernel(), factor=2, noise_model=noise)
    matrix = torch.randn(24, 24, generator=Generator().manual_seed(1), dtype=F64) / 5
    prior = GaussianPrior(torch.zeros(1, 4, 6, dtype=F64), Dense(matrix @ matrix.T + 0.1 * torch.eye(24, dtype=F64)))
    truth = prior.sample(1, Generator().manual_seed(2))
    part = likelihood_from_deepinv(physics, physics(truth.float()), (1, 4, 6))
    columns = torch.eye(24).reshape(24, 1, 4, 6)
    matrix = LinearMap(physics.A(columns).flatten(1).mT.to(F64), (1, 4, 6))
    exact = prior.condition(matrix, GaussianNoise(0.1), part.y.flatten(1).to(F64))
    three_floors = (0.942, 1.058)  # of the trace ratio of 512 exact draws
    check_posterior(get("mmps"), Posterior(prior, part), exact, members=512, trace_ratio=three_floors)


def test_least_squares_of_deepinv_on_an_operator_of_ours():
    """Conjugate gradients, LSQR and proximal gradient descent of deepinv reach the normal equations' answer."""
    matrix = torch.randn(20, 12, generator=Generator().manual_seed(1), dtype=F64)
    operator = LinearMap(matrix, (1, 3, 4))
    physics = to_deepinv(operator, (1, 3, 4), GaussianNoise(0.1), dtype=F64)
    y = torch.randn(2, 20, generator=Generator().manual_seed(2), dtype=F64)
    expected = torch.linalg.lstsq(matrix, y.mT).solution.mT.reshape(2, 1, 3, 4)
    for solver in ("CG", "lsqr"):
        found = physics.A_dagger(y, solver=solver, max_iter=200, tol=1e-10)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    x = torch.zeros_like(expected)
    fidelity = deepinv.optim.L2()
    for _ in range(2000):
        x = x - 1e-2 * fidelity.grad(x, y, physics)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_a_decomposition_of_ours_is_one_of_deepinv():
    operator = Convolution(torch.tensor([[0.1, 0.6, 0.3]], dtype=F64), grid=(4, 6))
    physics = to_deepinv(operator, (1, 4, 6), GaussianNoise(0.1), dtype=F64)
    assert isinstance(physics, P.DecomposablePhysics) and isinstance(physics.noise_model, P.GaussianNoise)
    x = torch.randn(2, 1, 4, 6, generator=Generator().manual_seed(1), dtype=F64)
    y = operator(x)
    torch.testing.assert_close(physics.A(x), y)
    torch.testing.assert_close(physics.A_dagger(y), x)
    gamma = 0.7
    normal = LinearMap.dense(operator, (1, 4, 6)).matrix
    left = torch.eye(24, dtype=F64) + gamma * normal.T @ normal
    z = torch.randn(2, 1, 4, 6, generator=Generator().manual_seed(2), dtype=F64)
    right = (z + gamma * operator.adjoint(y)).flatten(1)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma).flatten(1), torch.linalg.solve(left, right.mT).mT)


def test_nonlinear_operators_and_black_boxes_become_physics():
    physics = to_deepinv(lambda x: x.square(), (1, 3, 4), PoissonNoise(0.1))
    x = torch.rand(2, 1, 3, 4, generator=Generator().manual_seed(1))
    torch.testing.assert_close(physics.A_vjp(x, x), 2 * x * x)
    assert isinstance(physics.noise_model, P.PoissonNoise) and not isinstance(physics, P.LinearPhysics)

    class Box:
        differentiable = False

        def __call__(self, x):
            return x.detach() ** 2

    with pytest.raises(TypeError, match="Box has no gradient"):
        to_deepinv(Box(), (1, 3, 4)).A_vjp(x, x)
    with pytest.raises(ValueError, match="Mask does not accept fields"):
        to_deepinv(Mask(torch.ones(3, 4, dtype=torch.bool)), (1, 4, 4))
