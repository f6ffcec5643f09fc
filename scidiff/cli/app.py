"""The command ``scidiff``: a table of commands, each imported only when it is called.

``scidiff --help`` therefore imports neither torch nor any command. A command is a plain function with typer's
annotations in a thin file of this folder; to add one, write the file and one line in `COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from scidiff.cli.common import guarded

__all__ = ["COMMANDS", "Entry", "build", "main"]


class Entry(NamedTuple):
    """A line of the table.

    Arguments:
        target: ``module:function``, or a table of further commands.
        help: One line for ``--help``; the function's docstring is its own help page.
    """

    target: str | Mapping[str, Entry]
    help: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry(
        "scidiff.cli.demo:demo", "Reconstruct a simulated scan and compare with classical methods; no data needed."
    ),
    "reconstruct": Entry(
        "scidiff.cli.reconstruct:reconstruct", "Draw an ensemble of fields from a measurement in a file."
    ),
    "forecast": Entry(
        "scidiff.cli.forecast:forecast", "Draw an ensemble of futures of the states in a file; writes Zarr."
    ),
    "verify": Entry("scidiff.cli.verify:verify", "Score a forecast against what happened; a table with intervals."),
    "plot": Entry("scidiff.cli.plot:plot", "Draw a forecast: maps by lead, fan charts at points, an animation."),
    "check": Entry(
        "scidiff.cli.check:check", "Validate a measurement and its forward model before sampling; estimate the cost."
    ),
    "train": Entry(
        {
            "prior": Entry("scidiff.cli.train:train_prior", "Train a prior on fields; writes weights and a card."),
            "autoencoder": Entry(
                "scidiff.cli.train_autoencoder:train_autoencoder", "Train an autoencoder of fields, for latent priors."
            ),
            "latent": Entry("scidiff.cli.train_latent:train_latent", "Train a prior on the codes of an autoencoder."),
            "forecaster": Entry(
                "scidiff.cli.train_forecaster:train_forecaster",
                "Train a forecaster on states in time; writes weights and a card.",
            ),
        },
        "Train a prior, an autoencoder, a prior of its codes, or a forecaster.",
    ),
    "assess": Entry("scidiff.cli.assess:assess", "Compare draws of a learned prior with fields it has never seen."),
    "benchmark": Entry(
        "scidiff.cli.benchmark:benchmark", "Compare samplers on problems: accuracy, calibration and cost."
    ),
    "calibrate": Entry(
        "scidiff.cli.calibrate:calibrate", "Check a sampler by simulation: ranks of truths drawn from the prior."
    ),
    "certify": Entry("scidiff.cli.certify:certify", "Measure samplers against posteriors known exactly."),
    "inspect": Entry("scidiff.cli.inspect:inspect", "Show what a result, weights, a card or a k-space file holds."),
    "list": Entry(
        "scidiff.cli.list:show", "List samplers, problems, priors, autoencoders, forecasters, operators and readers."
    ),
    "doctor": Entry(
        "scidiff.cli.doctor:doctor", "Show versions, devices and what is missing, with the pip line for it."
    ),
}


def _exists(entry: Entry) -> bool:
    if isinstance(entry.target, str):
        return find_spec(entry.target.partition(":")[0]) is not None
    return any(map(_exists, entry.target.values()))


class LazyGroup(TyperGroup):
    """A group that knows its commands from a table and imports one when it is called."""

    table: Mapping[str, Entry]

    def list_commands(self, ctx: typer.Context) -> list[str]:
        """Names in the order of the table."""
        return [name for name, entry in self.table.items() if _exists(entry)]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:
        """The command's name and one line of help, enough to be listed; None if there is none of that name."""
        entry = self.table.get(cmd_name)
        return TyperCommand(cmd_name, help=entry.help) if entry and _exists(entry) else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command itself."""
        self.commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}  # for "did you mean"
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and build(name or "", self.table[name or ""]), rest


def build(name: str, entry: Entry) -> Any:
    """The command or group of one line of the table."""
    app = typer.Typer(name=name, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    if isinstance(entry.target, str):
        module, function = entry.target.split(":")
        app.command(name)(guarded(getattr(import_module(module), function)))
        return typer.main.get_command(app)
    app.callback(cls=LazyGroup, help=entry.help, no_args_is_help=True)(lambda: None)
    group = typer.main.get_command(app)
    group.table = entry.target  # type: ignore[attr-defined]
    return group


def _version(value: bool) -> None:
    if value:
        from scidiff import __version__

        typer.echo(f"scidiff {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Diffusion models for scientific inverse problems: ensembles that can be checked.

    Exit codes: 0 done, 1 bug, 2 usage or configuration, 3 input rejected, 4 optional package missing, 5 numerical
    failure, 6 quality gate failed, 75 interrupted after a checkpoint (run again with --resume), 130 Ctrl-C.
    """


def main() -> None:
    """Entry point of the console script."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(cls=LazyGroup, no_args_is_help=True)(_root)
    group = typer.main.get_command(app)
    group.table = COMMANDS  # type: ignore[attr-defined]
    group(prog_name="scidiff")
