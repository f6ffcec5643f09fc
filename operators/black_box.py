"""Forward models without derivatives: Python functions of numpy arrays, programs of their own, frozen operators.

Samplers that require no gradient (`enkg`, `scg`, `dpg`, `eki`, `dps_gsg`) work with them.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scidiff.errors import NumericalError
from scidiff.failures import POLICIES, Failure, report
from scidiff.operators.algebra import Algebra
from scidiff.protocols import Operator

__all__ = ["BlackBox", "Frozen", "Subprocess"]

OnFailure = Literal["raise", "drop", "redraw"]


class BlackBox(Algebra):
    r"""A Python function of numpy arrays as an operator.

    The function gets a copy of the fields on the CPU, in their own type, and its answer comes back with the type and
    device of the fields (whole numbers become floating-point ones). It must treat fields independently.

    Arguments:
        function: Maps fields (B, \*X) to measurements (B, \*Y); with ``batched=False`` one field (\*X) to (\*Y), a
            number counting as (1,).
        batched: Whether the function takes all fields of a batch at once.
        on_failure: What happens where the function raises or answers NaN for a field. ``"raise"``: the run stops, with
            an error that names it. ``"drop"``, ``"redraw"``: its measurement is NaN, and the sampler leaves the member
            out or draws it again (`scidiff.posterior.survival`); diagnostics ``failures`` tell member, call and
            message. A function of whole batches that raises is then called again with one field at a time.
        executor: Who makes the calls; None makes them here, one after the other. Any `concurrent.futures.Executor`:
            threads, processes, a Dask cluster (``distributed.Client(...).get_executor()``, which hands calls of a
            worker that died to another one). One call per field, so ``batched`` must be False; answers do not depend
            on who gives them. A function for processes must live in a module.

    Raises (when called):
        TypeError: if the answer is no array of numbers.
        ValueError: if it does not hold one measurement per field, or measurements differ in shape.
        NumericalError: if it holds NaN or infinite values; names the fields. With ``"drop"`` or ``"redraw"`` only if
            no call has succeeded yet, for then the shape of a measurement is not known.
    """

    differentiable = False
    storable = False  # files hold no code, and no command lines either

    def __init__(
        self,
        function: Callable[[Any], Any],
        batched: bool = True,
        on_failure: OnFailure = "raise",
        executor: Executor | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}.")
        if on_failure not in POLICIES:
            raise ValueError(f"on_failure must be one of {', '.join(POLICIES)}, got {on_failure!r}.")
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise TypeError(f"executor must be a concurrent.futures.Executor, got {type(executor).__name__}.")
        if executor is not None and batched:
            raise ValueError("an executor is given one field per call; write batched=False.")
        self.function, self.batched, self.on_failure, self.executor = function, batched, on_failure, executor
        self._answer: tuple[tuple[int, ...], Any] | None = None  # shape and type of a measurement, known after a call

    def __repr__(self) -> str:
        return f"BlackBox({self.name}{'' if self.batched else ', batched=False'})"

    @property
    def name(self) -> str:
        """What errors call it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, x: Tensor) -> Tensor:
        array = x.detach().cpu().numpy().copy()  # the function may write into it
        if self.on_failure == "raise":
            z = self._measured(array)
            bad = np.flatnonzero(~np.isfinite(z).reshape(len(z), -1).all(1))
            if len(bad):
                rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
                raise NumericalError(
                    f"{self.name} gives NaN or infinite values for field {rows} of {len(z)}; bound what it is given, "
                    "return a finite value far from the data where the model has no solution, or choose on_failure"
                )
        else:
            z = self._tolerant(array)
        out = torch.as_tensor(z, device=x.device)
        real = x.dtype.to_real()
        return out.to(real.to_complex() if out.is_complex() else real)

    def _measured(self, array: Any) -> Any:
        """The answer for all fields, (B, ...)."""
        if self.batched:
            z = self._numbers(self.function(array), "")
            if z.ndim == 0 or len(z) != len(array):
                raise ValueError(
                    f"{self.name} was given {len(array)} fields (B, ...) and answered with shape {z.shape}; it must "
                    "return one measurement per field along the first axis, or be wrapped with batched=False."
                )
            return z[:, None] if z.ndim == 1 else z
        single = []
        for i, call in enumerate(self._calls(array)):
            try:
                answer = call()
            except Exception as error:
                error.add_note(f"{self.name} was called for field {i} of {len(array)}.")
                raise
            single.append(np.atleast_1d(self._numbers(answer, f" for field {i}")))
        shapes = sorted({z.shape for z in single})
        if len(shapes) > 1:
            raise ValueError(f"{self.name} answers with measurements of several shapes, {shapes}; pad them to one.")
        return np.stack(single)

    def _calls(self, array: Any) -> list[Callable[[], Any]]:
        """For each field what gives its answer, or raises what the function raised; all are under way."""
        if self.executor is None:
            return [partial(self.function, field) for field in array]
        return [self.executor.submit(self.function, field).result for field in array]

    def _one(self, call: Callable[[], Any]) -> Any:
        return np.atleast_1d(self._numbers(call(), ""))

    def _tolerant(self, array: Any) -> Any:
        """The same with NaN for fields that fail, which are reported."""
        answers: list[Any] = [None] * len(array)
        messages: dict[int, str] = {}
        if self.batched:
            try:
                answers = list(self._measured(array.copy()))
            except Exception as error:
                if len(array) == 1:
                    messages[0] = _said(error)
        calls = [] if self.batched else self._calls(array.copy())
        for i in range(len(array)):
            if answers[i] is None and i not in messages:
                try:
                    answers[i] = self._measured(array[i : i + 1].copy())[0] if self.batched else self._one(calls[i])
                except Exception as error:
                    messages[i] = _said(error)
            if answers[i] is not None and not np.isfinite(answers[i]).all():
                answers[i], messages[i] = None, "NaN or infinite values"
        good = [z for z in answers if z is not None]
        if good:
            self._answer = good[0].shape, np.result_type(*good, np.float32)
        if self._answer is None:
            raise NumericalError(f"{self.name} failed for all {len(array)} fields of its first call: {messages[0]}")
        shape, dtype = self._answer
        if any(z.shape != shape for z in good):
            raise ValueError(f"{self.name} answers with measurements of several shapes; pad them to one.")
        missing = np.full(shape, np.nan, dtype)
        for i, message in messages.items():
            report(Failure(i, len(array), f"{self.name}: {message}", self.on_failure))
        return np.stack([missing if z is None else z for z in answers])

    def _numbers(self, answer: Any, where: str) -> Any:
        if isinstance(answer, Tensor):
            answer = answer.detach().cpu().numpy()
        z = np.asarray(answer)
        if z.dtype.kind not in "fciub":
            raise TypeError(
                f"{self.name} returned {type(answer).__name__}{where} ({z.dtype} entries); "
                "return a numpy array of numbers."
            )
        return z


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Subprocess(BlackBox):
    r"""A program of its own as an operator; fields and measurements pass through ``.npy`` files.

    The program is started without a shell in the current folder. ``{input}`` and ``{output}`` in its arguments stand
    for the two files, which lie in a temporary folder that is removed afterwards::

        Subprocess(["python", "solver.py", "{input}", "{output}"], timeout=600)

    Arguments:
        command: Program and arguments.
        batched: True starts it once for all fields of a batch, False once per field; see `BlackBox` for the shapes.
        timeout: Seconds after which a run is stopped; None waits.
        on_failure: As for `BlackBox`.
        executor: As for `BlackBox`; threads are enough for programs on this machine.

    Raises (when called):
        RuntimeError: if the program cannot be started, takes too long, fails, or writes no measurement; with the last
            lines it wrote to standard error.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        batched: bool = True,
        timeout: float | None = 3600.0,
        on_failure: OnFailure = "raise",
        executor: Executor | None = None,
    ) -> None:
        if isinstance(command, str):
            raise TypeError(f"command must be a sequence of arguments; write {command.split()!r}.")
        self.command = [str(part) for part in command]
        for place in ("{input}", "{output}"):
            if not any(place in part for part in self.command):
                raise ValueError(f"the command {self.command} has no {place}; write it where the file's path belongs.")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be positive or None, got {timeout}.")
        self.timeout = timeout
        super().__init__(_Program(tuple(self.command), timeout), batched, on_failure, executor)

    def __repr__(self) -> str:
        return f"Subprocess({self.command}, batched={self.batched}, timeout={self.timeout})"

    @property
    def name(self) -> str:
        return Path(self.command[0]).name


@dataclass(frozen=True)
class _Program:
    """One run of a program; can be sent to another process."""

    command: tuple[str, ...]
    timeout: float | None

    def __call__(self, fields: Any) -> Any:
        name = Path(self.command[0]).name
        with tempfile.TemporaryDirectory(prefix="scidiff-") as folder:
            given, answer = Path(folder) / "input.npy", Path(folder) / "output.npy"
            np.save(given, fields, allow_pickle=False)
            command = [part.replace("{input}", str(given)).replace("{output}", str(answer)) for part in self.command]
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.timeout, check=False
                )
            except OSError as error:
                raise RuntimeError(f"{name} cannot be started: {error}. Is it installed and executable?") from None
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(
                    f"{name} took longer than timeout={self.timeout:g} s.{_tail(error.stderr)}"
                ) from None
            if done.returncode:
                raise RuntimeError(f"{name} failed with exit code {done.returncode}.{_tail(done.stderr)}")
            if not answer.is_file():
                raise RuntimeError(
                    f"{name} ended well but wrote no file {{output}}; save the measurement there with "
                    f"numpy.save.{_tail(done.stderr)}"
                )
            try:
                return np.load(answer, allow_pickle=False)
            except ValueError as error:
                raise RuntimeError(f"{name} wrote a file that is no .npy array of numbers: {error}") from None


def _tail(stderr: bytes | None, lines: int = 10) -> str:
    """The last lines of standard error, for messages."""
    text = (stderr or b"").decode(errors="replace").strip()
    return "\nIts last lines:\n" + "\n".join(text.splitlines()[-lines:]) if text else " It wrote nothing to stderr."


class Frozen(Algebra):
    """A torch operator whose derivatives are not used: it runs under ``torch.no_grad`` and saves its memory.

    Its ``adjoint`` and ``svd`` are hidden too, so that it is a black box to every sampler.

    Arguments:
        operator: Any operator.
    """

    differentiable = False

    def __init__(self, operator: Operator) -> None:
        self.operator = operator

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.operator(x.detach())
