"""A run before it is run: what was read, what will be computed, and what decides the numbers."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Generator, Tensor

from scidiff.errors import InputError, NumericalError
from scidiff.failures import AllDropped
from scidiff.inference import Ensemble, Posterior
from scidiff.placement import default_batch, fingerprint, place, resolve_device, resolve_dtype
from scidiff.record import source, versions

if TYPE_CHECKING:
    import xarray as xr

    from scidiff.protocols import Callback, PosteriorSampler

__all__ = ["Plan", "method_name", "parameters"]


def method_name(method: Any) -> str:
    """The name under which a sampler is registered: its ``name``, else the class in lower case."""
    return str(getattr(method, "name", None) or type(method).__name__.lower())


def parameters(method: Any) -> dict[str, Any]:
    """The settings of a sampler and of its integrator, as `scidiff.posterior.get` takes them.

    Only plain values (numbers, strings, None); objects that a caller put in, such as another integrator or schedule,
    appear in ``repr(method)`` alone.
    """
    if not dataclasses.is_dataclass(method):
        return {}
    found = {f.name: getattr(method, f.name) for f in dataclasses.fields(method) if f.init}
    inner = [parameters(value) for value in found.values() if dataclasses.is_dataclass(value)]
    plain = {k: v for k, v in found.items() if v is None or isinstance(v, (bool, int, float, str))}
    return {k: v for part in [*inner, plain] for k, v in part.items()}


def dropped(ensemble: Ensemble) -> dict[int, str]:
    """Members that were dropped, and what the forward model said when it failed."""
    found = ensemble.diagnostics
    said = {failure["member"]: failure["message"] for failure in found.get("failures", [])}
    return {member: said.get(member, "the forward model failed") for member in found.get("dropped", [])}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return _text(value)


def _text(value: Any) -> str:
    """``repr`` without addresses in memory, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


@dataclasses.dataclass
class Plan:
    """All that a run needs, checked.

    Arguments:
        problem: Problem of `scidiff.problems`.
        sampler: Posterior sampler.
        observation: What ``problem.read`` made of the input.
        posterior: On the device and in the precision of the run.
        template: Dimensions, coordinates, units and type of one member.
        truth: The field that was measured, if known, under the field's name.
        checks: Answers of ``problem.check``.
        members: Number of draws.
        seed: Of the run.
        batch: Members drawn together.
        input: Path of the input, if it was one.
        fingerprints: sha256 of input file, observation and prior.
    """

    problem: Any
    sampler: PosteriorSampler
    observation: xr.Dataset
    posterior: Posterior
    template: xr.DataArray
    truth: xr.Dataset | None
    checks: dict[str, Any]
    members: int
    seed: int
    batch: int
    input: str | None
    fingerprints: dict[str, str | None]

    @classmethod
    def prepare(
        cls,
        problem: Any,
        observation: Any,
        sampler: str | PosteriorSampler = "mmps",
        members: int = 16,
        seed: int = 0,
        batch: int | None = None,
        device: str = "auto",
        dtype: str | None = None,
        truth: xr.Dataset | None = None,
    ) -> Plan:
        """Reads the observation, checks the forward model and moves the posterior to its device.

        Raises:
            InputError: the observation is rejected.
            ValueError: an argument is out of range.
        """
        from scidiff.fields import digest

        if int(members) != members or members < 1:
            raise ValueError(f"members must be an integer of at least 1, got {members!r}.")
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch!r}.")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed!r}.")
        where, precision = resolve_device(device), resolve_dtype(dtype)
        if isinstance(problem, str):
            from scidiff import problems

            problem = problems.get(problem)
        if isinstance(sampler, str):
            from scidiff import posterior as methods

            options = getattr(problem, "recommended", {}).get(sampler, {})
            sampler = methods.get(sampler, **options)  # type: ignore[assignment]
        path = os.fspath(observation) if isinstance(observation, (str, os.PathLike)) else None
        read = problem.read(observation)
        plain = problem.posterior(read)
        if plain.batch != 1:
            raise InputError(f"one observation at a time; problem {problem.name!r} made a posterior of {plain.batch}.")
        posterior = place(plain, where, precision)
        together = population(sampler) or members  # type: ignore[arg-type]
        return cls(
            problem=problem,
            sampler=sampler,  # type: ignore[arg-type]
            observation=read,
            posterior=posterior,
            template=problem.template(read),
            truth=_truth(problem.field, truth, read),
            checks=dict(problem.check(read)),
            members=int(members),
            seed=int(seed),
            batch=min(batch or default_batch(posterior, together), together),
            input=path,
            fingerprints={
                "input": digest(path) if path is not None and Path(path).is_file() else None,
                "observation": digest(read),
                "prior": fingerprint(plain.prior),
            },
        )

    @property
    def warnings(self) -> list[str]:
        """What the checks of the forward model warn of, and what the sampler does not give."""
        found = self.checks.get("warnings", [])
        found = [found] if isinstance(found, str) and found else list(found)
        if getattr(self.sampler, "point_estimate", False):
            found.append(
                f"{method_name(self.sampler)} gives one best guess per member: the spread over members is that of the "
                "optimiser, not the uncertainty of the field."
            )
        return found

    @property
    def configuration(self) -> dict[str, Any]:
        """All settings, as plain values: enough to run again."""
        return {
            "observation": self.input,
            "members": self.members,
            "seed": self.seed,
            "batch": self.batch,
            "device": self.posterior.device.type,
            "dtype": str(self.posterior.dtype).removeprefix("torch."),
            "problem": {"name": self.problem.name, **_plain(self.problem.config())},
            "sampler": {"name": method_name(self.sampler), **parameters(self.sampler)},
            "method": _text(self.sampler),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers; a resumed run must have the same. Where the input stands does not matter."""
        settings = {name: value for name, value in self.configuration.items() if name != "observation"}
        return {"configuration": settings, "sha256": self.fingerprints, "source": source(), "versions": versions()}

    @property
    def batches(self) -> list[list[int]]:
        """Indices of the members, batch by batch; the same whether a run is resumed or not.

        Populations are computed whole, so that a batch holds whole ones; `batch` then limits the particles at once.
        """
        size, particles = self.batch, population(self.sampler)
        if particles:
            size = particles * max(1, size // particles)
        return [list(range(i, min(i + size, self.members))) for i in range(0, self.members, size)]

    def draw(
        self, members: list[int], callback: Callback | None = None
    ) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
        """Draws members.

        Arguments:
            members: Their indices; they are drawn as one batch.
            callback: Called after every step.

        Returns:
            Fields in the shape of the template, and records ``{"chi2", "cost", "seconds"}``; of a member that was
            dropped because its forward model failed (``on_failure="drop"``), NaN and what the model said, "dropped".

        Raises:
            NumericalError: a member is not finite.
        """
        begin = time.monotonic()
        generator = Generator().manual_seed(self.seed)
        why: dict[int, str] = {}
        try:
            ensemble = self.sampler(self.posterior, members, generator, batch_size=self.batch, callback=callback)
        except AllDropped as error:
            why, samples, cost = dict.fromkeys(members, error.last), iter(()), {}
        else:
            why = dropped(ensemble)
            samples, cost = iter(ensemble.samples), ensemble.cost.as_dict()
        seconds = time.monotonic() - begin
        fields, records = [], []
        for member in members:
            record: dict[str, Any] = {"cost": cost, "seconds": seconds}
            if member in why:
                fields.append(np.full(self.template.shape, np.nan, self.template.dtype))
                records.append(record | {"chi2": math.nan, "dropped": why[member]})
            else:
                x = next(samples)
                fields.append(self._field(member, x))
                records.append(record | {"chi2": self._chi2(x)})
        return fields, records

    def _field(self, member: int, x: Tensor) -> np.ndarray:
        from scidiff.fields import from_tensor

        field = from_tensor(x, self.template).values
        if not np.isfinite(field).all():
            raise NumericalError(
                f"member {member} of {method_name(self.sampler)} is not finite. Try more steps or --dtype float64, "
                "and look at the noise level and chi2 that `scidiff check` reports for this input."
            )
        return field

    def _chi2(self, x: Tensor) -> float:
        parts = self.posterior.likelihoods
        if not all(part.whitens for part in parts):
            return math.nan
        with torch.no_grad():
            return float(torch.cat([part.residual(x) for part in parts], dim=1).double().square().mean())


def population(sampler: PosteriorSampler) -> int:
    """Particles that the method moves together; 0 where members are independent."""
    from scidiff.posterior import PopulationSampler

    return sampler.particles if isinstance(sampler, PopulationSampler) else 0


def _truth(field: str, truth: xr.Dataset | None, observation: xr.Dataset) -> xr.Dataset | None:
    """The truth under the field's name: the one given, else the ``truth`` or ``reference`` the observation carries."""
    for data in (truth, observation):
        for name in (field, "truth", "reference") if data is truth else ("truth", "reference"):
            if data is not None and name in data:
                return data[[name]].rename({name: field}) if name != field else data[[name]]
    return None
