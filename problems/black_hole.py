r"""An image of a compact source, such as the surroundings of a black hole, from very-long-baseline interferometry.

.. math:: V_{ij} = g_i g_j^* \int I(x, y)\, e^{2 \pi i (u_{ij} x + v_{ij} y)}\, dx\, dy + n

Phases and amplitudes of the station gains :math:`g` are not known at millimetre wavelengths. What no gain can change is
used: closure phases and log closure amplitudes (`scidiff.operators.interferometry`), and a total flux, which closures
do not see. Nor do they see where on the sky the source is: images are aligned before they are compared or averaged.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError
from scidiff.inference import Ensemble, Likelihood, Posterior
from scidiff.problems import black_hole_scores as scoring
from scidiff.problems.base import Case, parameters, require, rescaled, samples_of, stream
from scidiff.problems.black_hole_observation import (
    FINER,
    Editing,
    coverage,
    microarcseconds,
    observed,
    prepare,
    read,
    sky_axes,
    visibility_data,
)
from scidiff.protocols import Prior

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["BlackHoleImaging"]

SOURCES = ("rings", "crescent", "ring", "disc", "double")
PRODUCTS = ("closures", "visibilities")
TRIVIAL_LIMIT = 2.5
RML_WIDTH = 50.0  # microarcseconds, of the Gaussian towards which that baseline's entropy pulls


class BlackHoleImaging:
    """Brightness of a compact source in Jy per pixel from visibilities of an array of telescopes.

    Arguments:
        prior: A prior of positive images (1, H, W) with a flux of one jansky: the name of a bundled one, a
            ``.safetensors`` file, any prior, or ``"generic"``, which knows no rings (`scidiff.problems.positive`).
        shape: Height and width of the image in pixels; that of the prior.
        fov: Field of view along the longer side, microarcseconds; that of the prior.
        flux: Total flux of the compact source, Jy. The default is that of M87* in April 2017 as in the reference.
        flux_std: Its standard deviation, Jy.
        products: ``"closures"``, or ``"visibilities"`` for data whose gains are calibrated.
        average: Length of coherent averages in seconds; None averages whole scans, 0 keeps the rows as they are.
        systematic: Systematic error of the visibilities as a fraction of their amplitude, for M87* in 2017 at most
            0.02; with the default, closures that no source can change have the scatter they should (`check`).
        shortest: Shortest baseline that is used, wavelengths. Stations at one place also see the jet, which is larger
            than the image.
        snr: Visibilities of less signal to noise enter no closure.
        source: What simulated cases show: ``"rings"``, the law of the bundled prior, or a kind of
            `scidiff.datasets.compact_sources`: crescent, ring, disc, double.
        array: Baselines and noise of simulated cases: ``"eht2017"``, a table of stations (``.txt``), or a file of real
            visibilities.
        gain: Standard deviation of the log amplitudes of the gains of simulated cases; their phases are random.
        seed: Seed of the simulated cases.

    References:
        First M87 Event Horizon Telescope Results IV, The EHT Collaboration, 2019, doi:10.3847/2041-8213/ab0e85 (compact
        flux of 0.6 Jy, beam of 20 microarcseconds).
    """

    name, field, default_sampler = "black-hole", "image", "mmps"
    scores_data = True  # `evaluate` has something to say without a truth

    def __init__(
        self,
        prior: str | os.PathLike[str] | Prior = "rings",
        shape: tuple[int, int] = (64, 64),
        fov: float = 160.0,
        flux: float = 0.6,
        flux_std: float = 0.03,
        products: str = "closures",
        average: float | None = None,
        systematic: float = 0.01,
        shortest: float = 1e8,
        snr: float = 3.0,
        source: str = "rings",
        array: str | os.PathLike[str] = "eht2017",
        gain: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.arguments = {k: v for k, v in locals().items() if k != "self"}
        if len(tuple(shape)) != 2 or min(shape) < 8:
            raise ValueError(f"shape must be (height, width) of at least 8 pixels, got {tuple(shape)}.")
        for label, value in (("fov", fov), ("flux", flux), ("flux_std", flux_std), ("snr", snr)):
            if not value > 0:
                raise ValueError(f"{label} must be positive, got {value}.")
        for label, value in (("systematic", systematic), ("shortest", shortest), ("gain", gain)):
            if not value >= 0:
                raise ValueError(f"{label} must not be negative, got {value}.")
        if average is not None and not average >= 0:
            raise ValueError(f"average is a time in seconds, 0 for none, or None for whole scans, got {average}.")
        if products not in PRODUCTS:
            raise ValueError(f"products must be one of {', '.join(PRODUCTS)}, got {products!r}.")
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}.")
        self.shape, self.fov, self.flux, self.flux_std = (int(shape[0]), int(shape[1])), fov, flux, flux_std
        self.products, self.snr, self.source, self.array = products, snr, source, array
        self.gain, self.seed, self._prior = gain, seed, prior
        self.editing = Editing(average, shortest, systematic)

    @property
    def pixel(self) -> float:
        """Side of a pixel, microarcseconds."""
        return self.fov / max(self.shape)

    @cached_property
    def prior(self) -> Prior:
        """The prior of images with a flux of one jansky."""
        if not isinstance(self._prior, (str, os.PathLike)):
            return self._prior
        if str(self._prior) == "generic":
            from scidiff.problems.positive import generic_sky

            return generic_sky(self.shape, self.fov)
        from scidiff.priors.pretrained import load_pretrained

        prior = load_pretrained(self._prior)
        pixel = prior.card.get("pixel_size")
        if pixel is not None and not np.isclose(pixel, self.pixel, rtol=1e-3):
            raise InputError(
                f"the prior '{self._prior}' has pixels of {pixel:g} microarcseconds, but fov {self.fov:g} over "
                f"{max(self.shape)} pixels makes {self.pixel:g}; choose fov and shape to match."
            )
        return prior

    def config(self) -> dict[str, Any]:
        return parameters(self)

    # Observations

    def read(self, source: str | os.PathLike[str] | Sequence[Any] | np.ndarray | xr.Dataset) -> xr.Dataset:
        """Visibilities, averaged and flagged as the constructor says.

        Arguments:
            source: A file of `scidiff.datasets.interferometry.read_visibilities`, a list of such files (days or bands),
                a Dataset of visibilities, or an observation of this problem, which is validated and returned.

        Raises:
            InputError: naming the file and the field.
        """
        data = read(source)
        return data if data.attrs.get("prepared") else prepare(data, self.editing)

    def case(self, index: int = 0, generator: Generator | None = None) -> Case:
        """A simulated source and its visibilities, with thermal noise and random gains.

        The visibilities come from a grid `FINER` times as fine; the truth is the mean over the pixels of the problem's.
        """
        from scidiff.datasets.compact_sources import compact_source
        from scidiff.datasets.rings import ring_image

        generator = stream("black-hole", self.seed, index) if generator is None else generator
        fine = (FINER * self.shape[0], FINER * self.shape[1])
        sky = ring_image(fine, generator, self.fov) if self.source == "rings" else None
        if sky is None:
            sky = compact_source(self.source, fine, generator, self.fov)
        sky = self.flux * sky
        truth = FINER**2 * torch.nn.functional.avg_pool2d(sky[None, None], FINER)[0, 0]
        data = observed(sky, self.pixel / FINER, coverage(self.array), self.gain, generator)
        attrs = {"simulated": f"{self.source}, from a grid {FINER} times as fine as the inversion's"}
        observation = prepare(data.assign_attrs(attrs), self.editing)
        return Case(self._image(truth.numpy()).to_dataset().assign_attrs(attrs), observation)

    def observe(self, truth: xr.Dataset, generator: Generator | None = None) -> xr.Dataset:
        """Visibilities of a given picture (y, x) in Jy per pixel, of any resolution, on the problem's baselines."""
        image = require(truth, self.field, ("y", "x"), "the truth")
        if "x" not in image.coords or image.sizes["x"] < 2:
            raise InputError("the truth: 'image' needs a coordinate 'x' in microarcseconds, which gives its pixels.")
        pixel = abs(float(image["x"][1] - image["x"][0]))
        values = torch.as_tensor(np.asarray(image.values, float))
        generator = torch.Generator().manual_seed(self.seed) if generator is None else generator
        return prepare(observed(values, pixel, coverage(self.array), self.gain, generator), self.editing)

    # The question

    def likelihoods(self, observation: xr.Dataset) -> tuple[Likelihood, ...]:
        """One likelihood per data product: closure phases, log closure amplitudes (or visibilities), and total flux.

        Raises:
            InputError: no triangle or quadrangle of baselines is left.
        """
        from scidiff.operators.interferometry import likelihoods as parts

        data, pixel = visibility_data(observation), microarcseconds(self.pixel)
        flux = (self.flux, self.flux_std)
        try:
            if self.products == "visibilities":
                first = parts.of_visibilities(data, self.shape, pixel)
                return first, parts.of_flux(*flux, shape=self.shape, like=data.vis)
            return parts.closure_likelihoods(data, self.shape, pixel, flux, min_snr=self.snr)
        except ValueError as error:
            raise InputError(f"the observation: {error}") from error

    def posterior(self, observation: xr.Dataset) -> Posterior:
        prior = rescaled(self.prior, self.flux)
        return Posterior(prior, self.likelihoods(observation), (1, *self.shape))

    def _image(self, values: np.ndarray) -> xr.DataArray:
        import xarray as xr

        attrs = {"units": "Jy/pixel", "long_name": "brightness"}
        return xr.DataArray(values, sky_axes(self.shape, self.pixel), ("y", "x"), self.field, attrs)

    def template(self, observation: xr.Dataset) -> xr.DataArray:
        return self._image(np.zeros(self.shape, np.float32))

    # Comparisons

    def check(self, observation: xr.Dataset) -> dict[str, Any]:
        """How many data there are, and whether their errors are right where the source does not matter.

        ``trivial_phase_chi2, trivial_amplitude_chi2``: ratios of visibilities that are one for any source, see
        `scidiff.problems.black_hole_observation.trivial_closures`.
        """
        parts = self.likelihoods(observation)
        names = ("visibilities",) if self.products == "visibilities" else ("closure_phases", "log_closure_amplitudes")
        found: dict[str, Any] = {name: int(part.y.shape[1]) for name, part in zip(names, parts, strict=False)}
        found["rows"] = observation.sizes["row"]
        notes = []
        if observation.attrs.get("trivial_closures"):
            for key in ("trivial_phase_chi2", "trivial_amplitude_chi2", "trivial_closures"):
                found[key] = float(observation.attrs[key])
                if found[key] > TRIVIAL_LIMIT and key != "trivial_closures":
                    notes.append(
                        f"{key} is {found[key]:.2f}, although these closures are zero for any source: the errors are "
                        "larger than stated; raise `systematic`."
                    )
        return {**found, "warnings": notes}

    def baselines(self, observation: xr.Dataset) -> dict[str, xr.DataArray]:
        """Classical images without a learned prior.

        ``rml``: regularised maximum likelihood of the same data products (`scidiff.problems.rml`). ``dirty``: the
        measured visibilities transformed back, Jy per beam; it presumes calibrated phases.
        """
        from scidiff.operators.interferometry import Visibilities
        from scidiff.operators.interferometry.images import dirty_image
        from scidiff.problems.rml import regularised_maximum_likelihood

        pixel = microarcseconds(self.pixel)
        image = regularised_maximum_likelihood(
            self.likelihoods(observation), self.shape, pixel, self.flux, microarcseconds(RML_WIDTH)
        )
        data = visibility_data(observation)
        dirty = dirty_image(Visibilities(data.uv, self.shape, pixel), data.vis[None], data.sigma.double() ** -2)
        found = {"rml": self._image(image[0, 0].numpy().astype(np.float32))}
        found["dirty"] = self._image(dirty[0, 0].numpy().astype(np.float32)).assign_attrs(units="Jy/beam")
        return found

    def members(self, result: Ensemble | xr.Dataset, observation: xr.Dataset | None = None) -> xr.Dataset:
        """Misfit per data product and measured ring of every member, see `scidiff.problems.black_hole_scores`."""
        images = self._samples(result)[:, 0].unsqueeze(1)
        if observation is None and not isinstance(result, Ensemble) and "visibility" in result:
            observation = result
        parts = () if observation is None else self.likelihoods(observation)
        return scoring.member_table(images, parts, self.pixel)

    def _samples(self, ensemble: Ensemble | xr.Dataset) -> Tensor:
        return samples_of(ensemble, self.field, self.shape).to(torch.float32)

    def aligned(self, result: Ensemble | xr.Dataset) -> np.ndarray:
        """Members (M, H, W) shifted onto their mean, whose brightness is centred; twice, as the mean sharpens."""
        images = self._samples(result)[:, 0].double().numpy()
        for _ in range(2):
            mean = images.mean(0)
            rows, columns = np.indices(self.shape) - (np.array(self.shape)[:, None, None] - 1) / 2
            centre = [round(float((mean * axis).sum() / mean.sum())) for axis in (rows, columns)]
            images, _ = scoring.align(images, np.roll(mean, (-centre[0], -centre[1]), (0, 1)))
        return images

    def evaluate(self, ensemble: Ensemble | xr.Dataset, truth: xr.Dataset | None = None) -> xr.Dataset:
        """Misfits and rings of the members; against a truth also similarity after alignment.

        Warns if the members do not explain the data, see `scidiff.problems.black_hole_scores.verdict`; the sentences
        are in the attribute ``warnings``.
        """
        import xarray as xr

        table = self.members(ensemble)
        scores = scoring.summary(table)
        if truth is not None:
            true = require(truth, self.field, ("y", "x"), "the truth").values.astype(float)
            scores |= scoring.similarity(self._samples(ensemble)[:, 0].double().numpy(), true, self.pixel)
        said = scoring.verdict(table)
        for sentence in said:
            warnings.warn(sentence, stacklevel=2)
        units = {"psnr": "dB", "psnr_blurred": "dB", "crps": "Jy/pixel"}
        units |= {k: "microarcsecond" for k in scores if k.startswith("ring_") and k != "ring_share"}
        found = xr.Dataset({k: ((), v, {"units": units.get(k, "1")}) for k, v in scores.items()})
        return found.assign_attrs(warnings="; ".join(said))

    def plot(self, result: xr.Dataset) -> Figure:
        """See `scidiff.problems.black_hole_plot`."""
        from scidiff.problems.black_hole_plot import black_hole_figure

        return black_hole_figure(self, result)
