"""`scidiff assess`: what it says of priors whose faults are known."""

import math

import pytest
import torch

from scidiff.benchmark.assess import assess, kolmogorov, spectrum_ratio, strongest
from scidiff.cli.assess import table
from scidiff.cli.common import exit_code
from scidiff.datasets.gaussian_field import GaussianFields
from scidiff.errors import InputError

DATA = {"kind": "gaussian-field", "alpha": 1.5, "tau": 10.0, "boundary": "periodic"}


class Known:
    """The exact prior of the card's law, with its smooth scales shrunk by a factor if asked for."""

    channels, device, affine = 1, torch.device("cpu"), True

    def __init__(self, shrink=1.0, **card):
        cov = GaussianFields(**{k: v for k, v in DATA.items() if k != "kind"}).covariance((12, 16))
        ky, kx = (torch.fft.fftfreq(n) * n for n in (12, 16))
        smooth = torch.hypot(ky[:, None], kx[None]) < 2.5
        self.variance = torch.where(smooth, shrink * cov.eigenvalues, cov.eigenvalues)  # of every Fourier mode
        self.shape = (1, 12, 16)
        self.card = {"data": DATA, "training": {"crops": [[12, 16]]}, "network": {"padding": "periodic"}, **card}

    def denoise(self, u, sigma):
        gain = (self.variance / (self.variance + sigma.double() ** 2)).float()
        return torch.fft.ifft2(torch.fft.fft2(u) * gain).real

    def decode(self, u):
        return u

    encode = decode


def test_the_exact_prior_has_nothing_to_learn():
    found = assess(Known(name="exact"), draws=400, steps=24, seed=1)
    for row in found["rows"]:
        assert abs(row["spectrum"] - 1) < 4 * row["spectrum_error"] + 0.02, row
        assert row["kolmogorov"] < 0.02 and abs(row["std"] - 1) < 0.05, row
    for level in found["wiener"]:  # the filter is fitted to 400 fields: about 1/200 worse than the law's own
        assert 0.98 < level["ratio"] < 1.0, level
    text = table(found)
    assert "exact: 400 draws" in text and text.count("| held out |") == 1


def test_a_prior_that_shrinks_the_large_scales_is_found_out():
    """Wavenumbers below 2.5 have 0.6 of their variance: the ratio says so."""
    found = assess(Known(shrink=0.6), draws=400, steps=24, seed=1)
    for row in found["rows"]:
        assert row["worst_ring"] <= 2 and abs(row["spectrum"] - 0.6) < 0.15, row
        assert row["rings_within"] < 1 and row["std"] < 0.95


def test_kolmogorov_against_scipy():
    from scipy.stats import ks_2samp

    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(300, generator=g), 0.2 + 1.1 * torch.randn(170, generator=g)
    b[:40] = a[:40]  # ties
    assert kolmogorov(a, b) == pytest.approx(ks_2samp(a.numpy(), b.numpy()).statistic, abs=1e-12)


def test_spectrum_ratio_of_scaled_fields():
    g = torch.Generator().manual_seed(0)
    fields = torch.randn(50, 8, 12, generator=g, dtype=torch.float64)
    for periodic in (True, False):
        rings, ratio, error = spectrum_ratio(1.5 * fields, fields, periodic)
        assert len(rings) > 3 and torch.allclose(ratio, torch.full_like(ratio, 2.25))
        assert bool((error > 0).all())


def test_strongest_pattern():
    """White noise plus a common offset of deviation 3 on n points: sqrt(1 + 9 n)."""
    g = torch.Generator().manual_seed(0)
    fields = torch.randn(4000, 1, 4, 5, generator=g) + 3 * torch.randn(4000, 1, 1, 1, generator=g)
    assert strongest(fields) == pytest.approx(math.sqrt(1 + 9 * 20), rel=0.05)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"data": None}, "does not say what it was trained on"),
        ({"condition": {"names": ["orography"]}}, "needs a condition"),
        ({"data": {"kind": "ct", "files": ["leg.nii.gz"]}}, r"leg.nii.gz: give the folder .*--data"),
        ({"training": {"crops": [[8]]}}, "two dimensions"),
    ],
)
def test_priors_that_cannot_be_compared(card, message):
    with pytest.raises(InputError, match=message):
        assess(Known(**card), draws=8)


def test_the_command(capsys, monkeypatch):
    from scidiff.cli.app import main

    def run(*words):
        monkeypatch.setattr("sys.argv", ["scidiff", "assess", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, capsys.readouterr()

    code, said = run("no-such-prior")
    assert code == exit_code(InputError("")) == 3 and "no-such-prior" in said.err
    code, said = run("gaussian-field", "--draws", "8", "--steps", "3", "--device", "cpu")
    assert not code and "| held out | channel 0 |" in said.out


def test_a_latent_prior_is_compared_in_fields():
    """An exact prior behind a rotation of the field's numbers, in units ten times as small: nothing to find."""
    from scidiff.priors import LatentPrior

    class Halves:
        """Exchanges the halves of the field and divides by ten."""

        stride = 1

        def encode(self, x):
            return x.roll(6, 2) / 10

        def decode(self, z):
            return 10 * z.roll(-6, 2)

        def latent_shape(self, shape):
            return shape

    class Codes(Known):
        def decode(self, u):
            return u / 10

        def encode(self, z):
            return 10 * z

    prior = LatentPrior(Halves(), Codes(codes={"grid": [12, 16]}, training={"crops": [[3, 4]]}, name="pair"))
    found = assess(prior, draws=200, steps=24, seed=1)
    assert found["crop"] == [12, 16]
    for row in found["rows"]:
        assert abs(row["spectrum"] - 1) < 4 * row["spectrum_error"] + 0.02, row
        assert row["kolmogorov"] < 0.03 and abs(row["std"] - 1) < 0.05, row
    assert all(0.97 < level["ratio"] < 1.01 for level in found["wiener"])
