"""``scidiff check PROBLEM FILE``: is the measurement sound, is the forward model right, what will the run cost?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scidiff.cli.common import QUALITY_GATE, Json, emit, say
from scidiff.cli.reconstruct import (
    Acceleration,
    Batch,
    ConfigFile,
    Device,
    Dtype,
    File,
    Members,
    Prior,
    Problem,
    Sampler,
    Settings,
    Steps,
    Zeros,
    build,
    settings_of,
)

if TYPE_CHECKING:
    from scidiff.plan import Plan

__all__ = ["check"]


def check(
    problem: Problem = None,
    file: File = None,
    members: Members = None,
    sampler: Sampler = None,
    steps: Steps = None,
    prior: Prior = None,
    acceleration: Acceleration = None,
    zeros: Zeros = None,
    batch: Batch = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Validate a measurement and its forward model before sampling, and estimate time and memory.

    Takes the options of `scidiff reconstruct` that say what is computed. Reads the file; checks that the adjoint is
    the adjoint and that gradients are right; fits the forward model to the data (chi2 about 1 where it is right);
    times the first steps.

    Ends with code 6 if a check of the operator fails.
    """
    options = {
        "problem.name": problem,
        "problem.acceleration": acceleration,
        "problem.zeros": zeros,
        "problem.prior": prior,
        "observation": str(file) if file is not None else None,
        "sampler.name": sampler,
        "sampler.steps": steps,
        "members": members,
        "batch": batch,
        "device": device,
        "dtype": dtype,
    }
    run = settings_of(None, config, settings, options)
    import typer

    from scidiff import problems
    from scidiff.plan import Plan

    chosen, method = build(run, problems.get)
    plan = Plan.prepare(
        chosen, run["observation"], method, run["members"], run["seed"], run["batch"], run["device"], run["dtype"]
    )
    found: dict[str, Any] = {
        "observation": {
            str(name): {"dims": dict(v.sizes), "dtype": str(v.dtype), "units": v.attrs.get("units", "")}
            for name, v in plan.observation.data_vars.items()
        },
        "field": {
            "name": chosen.field,
            "dims": dict(plan.template.sizes),
            "dtype": str(plan.template.dtype),
            "units": plan.template.attrs.get("units", ""),
        },
        "operator": operator_checks(plan),
        "forward_model": {name: value for name, value in plan.checks.items() if name != "warnings"},
        "estimate": estimate(plan),
        "warnings": plan.warnings,
    }
    failed = [part["failed"] for part in found["operator"] if "failed" in part]
    if json:
        emit(found)
    else:
        _tell(found)
    for text in failed:
        say(f"failed: {text}")
    if failed:
        raise typer.Exit(QUALITY_GATE)


def operator_checks(plan: Plan) -> list[dict[str, Any]]:
    """Adjoint and gradient of every operator, in double precision on the processor.

    Returns:
        One record per instrument with the largest relative errors, or under ``failed`` what is wrong.
    """
    import torch

    from scidiff.placement import place
    from scidiff.testing import check_adjoint, check_vjp

    posterior = place(plan.posterior, torch.device("cpu"), torch.float64)
    state = torch.randn(1, *(posterior.shape or ()), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        field = posterior.prior.decode(state)
    records = []
    for part in posterior.likelihoods:
        record: dict[str, Any] = {"operator": type(part.operator).__name__}
        try:
            if part.linear:
                record["adjoint_error"] = check_adjoint(part.operator, field.shape[1:], dtype=field.dtype)  # type: ignore[arg-type]
            if part.differentiable:
                record["gradient_error"] = check_vjp(part.operator, field)
        except AssertionError as error:
            record["failed"] = str(error)
        records.append(record)
    return records


class _Enough(Exception):  # noqa: N818 - an event, not a fault
    """Enough steps were taken."""


def estimate(plan: Plan) -> dict[str, Any]:
    """Time and memory of the whole run, from the first steps of its first batch.

    The last of three steps is timed: the first one also pays for what is done once.
    """
    from scidiff.record import peak_memory

    times: list[float] = []
    steps_in_all = 1

    def watch(step: int, steps: int, sigma: float, u: Any) -> None:
        nonlocal steps_in_all
        steps_in_all = steps
        if u.is_cuda:
            import torch

            torch.cuda.synchronize(u.device)
        times.append(time.monotonic())
        if len(times) == 3:
            raise _Enough

    begin = time.monotonic()
    try:
        plan.draw(plan.batches[0], watch)
    except _Enough:
        pass
    marks = [begin, *times]
    seconds = marks[-1] - marks[-2]
    output = 2 * plan.members * plan.template.dtype.itemsize * plan.template.size  # members and result, side by side
    return {
        "members": plan.members,
        "batch": plan.batch,
        "steps": steps_in_all,
        "seconds_per_step": seconds,
        "seconds": seconds * steps_in_all * len(plan.batches),
        "disk_bytes": output,
        **peak_memory(),
    }


def _tell(found: dict[str, Any]) -> None:
    for name, part in [*found["observation"].items(), (found["field"]["name"] + " (to be found)", found["field"])]:
        say(f"{name}: {part['dims']}, {part['dtype']}, units {part['units'] or 'none'}")
    for record in found["operator"]:
        errors = {k.replace("_", " "): f"{v:.1e}" for k, v in record.items() if k.endswith("_error")}
        say(f"{record['operator']}: " + ", ".join(f"{k} {v}" for k, v in errors.items()))
    for name, value in found["forward_model"].items():
        say(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    for text in found["warnings"]:
        say(f"warning: {text}")
    cost = found["estimate"]
    say(
        f"estimate: {cost['members']} members in batches of {cost['batch']}, {cost['steps']} steps each: "
        f"{cost['seconds']:.0f} s, {cost.get('peak_memory_bytes', 0) / 2**30:.1f} GiB of memory, "
        f"{cost['disk_bytes'] / 2**20:.0f} MiB of disk"
    )
