r"""Finished members on disk, so that a run can stop at any instant and go on later.

``<output>/.members/`` holds, while a run is under way:

- ``run.json``: what decides the numbers (configuration, seed, fingerprints of input and prior, versions);
- ``member_00007.npy``: the field of member 7 in physical units;
- ``member_00007.json``: its record (chi2, cost, seconds), written last: it says that the member is finished.

Each is written under a temporary name, synchronised and renamed, so a SIGKILL leaves either the whole file or none.
(An HDF5 file that is open when its process dies may be unreadable; that is why members are not streamed into one.)
A resumed run keeps the batches of the first one and redoes the batch that was cut, so its numbers are bit-identical.
When all members are there, the caller writes the result and `MemberStore.remove` deletes the folder.

A lock held by the kernel keeps two runs out of one folder; it vanishes with the process that holds it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scidiff.errors import InputError, Interrupted
from scidiff.fields import atomic, write_json

__all__ = ["MemberStore", "differences", "disk_full", "is_disk_full", "locked", "moments"]

FOLDER = ".members"
DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk, an exceeded quota or a file size limit."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        # HDF5 reports the system's error number in words, through several exception types.
        if any(int(code) in DISK_FULL for code in re.findall(r"errno = (\d+)", str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def disk_full(message: Callable[[], str]) -> Iterator[None]:
    """Turns a full disk inside the block into `Interrupted`: what is finished is kept and the run can go on.

    Arguments:
        message: Says what was kept and how to continue; called when it happens.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, Interrupted) or not is_disk_full(error):
            raise
        raise Interrupted(f"the disk is full or a size limit was reached ({error}); {message()}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for one run.

    Raises:
        InputError: another process holds it; the message names its process id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _try_lock(descriptor):
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise InputError(f"{folder}: another run (process {owner}) writes here; wait, or choose another --out.")
        # The last holder may have removed the file between our open and our lock: then we hold a name nobody sees.
        with contextlib.suppress(FileNotFoundError):
            if os.name == "nt" or os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        if os.name != "nt":
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
            return False
        raise
    return True


class MemberStore:
    """The finished members of one run.

    Arguments:
        output: Folder of the result; the members stand in its subfolder ``.members``.
    """

    def __init__(self, output: Path) -> None:
        self.folder = output / FOLDER

    def start(self, identity: Mapping[str, Any]) -> None:
        """Empties the folder and writes down what decides the numbers of the run."""
        self.remove()
        self.folder.mkdir(parents=True)
        write_json(self.folder / "run.json", identity)

    @property
    def exists(self) -> bool:
        """Whether an unfinished run stands here."""
        return (self.folder / "run.json").is_file()

    def identity(self) -> dict[str, Any]:
        """What decides the numbers of the run that stands here."""
        return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    def check(self, identity: Mapping[str, Any]) -> None:
        """Compares with the run that stands here.

        Raises:
            InputError: something that decides the numbers differs; the message names it with both values.
        """
        found = differences(self.identity(), identity)
        if found:
            raise InputError(
                f"{self.folder.parent}: cannot resume, this is another run: {'; '.join(found)}. "
                "Resume with the settings of the first run, or start again with --overwrite."
            )

    def done(self) -> list[int]:
        """Indices of the finished members, ascending."""
        names = (re.fullmatch(r"member_(\d+)\.json", path.name) for path in self.folder.glob("member_*.json"))
        return sorted(int(name.group(1)) for name in names if name)

    def _path(self, member: int, kind: str) -> Path:
        return self.folder / f"member_{member:05d}.{kind}"

    def write(self, member: int, field: np.ndarray, record: Mapping[str, Any]) -> None:
        """Keeps a finished member: the field first, then the record that makes it count."""
        with atomic(self._path(member, "npy")) as temporary, open(temporary, "wb") as stream:
            np.save(stream, field, allow_pickle=False)
        write_json(self._path(member, "json"), record)

    def read(self, member: int) -> np.ndarray:
        """The field of a finished member."""
        path = self._path(member, "npy")
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} is unreadable ({error}); start again with --overwrite.") from error

    def record(self, member: int) -> dict[str, Any]:
        """The record of a finished member."""
        return json.loads(self._path(member, "json").read_text(encoding="utf-8"))

    def remove(self) -> None:
        """Deletes the members; ``run.json`` goes first, so that a half-deleted folder is not taken for a run."""
        (self.folder / "run.json").unlink(missing_ok=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, what differs between two nested records, compared as JSON."""
    return list(_differences(_json(old), _json(new)))


def _json(record: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(record, default=str))


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {old!r} and is now {new!r}"


def moments(read: Callable[[int], np.ndarray], members: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and spread over members in two passes, in double precision, in the order given, with constant memory.

    .. math:: \bar x = \frac1M \sum_m x_m, \qquad s^2 = \frac{1}{M-1} \sum_m |x_m - \bar x|^2

    Complex fields: ``s`` is per real component, so that ``E|x - mean|^2 = 2 s^2``, as in `Ensemble.spread`.

    Arguments:
        read: ``read(m)`` gives member ``m``.
        members: Indices; one alone has a spread of NaN.

    Returns:
        Mean in the type of the members and spread in its real type.
    """
    first = read(members[0])
    wide = np.result_type(first.dtype, np.float64)
    mean = np.zeros(first.shape, wide)
    for member in members:
        mean += read(member)
    mean /= len(members)
    power = np.zeros(first.shape, np.float64)
    for member in members:
        deviation = read(member) - mean
        power += np.real(deviation) ** 2 + np.imag(deviation) ** 2 if np.iscomplexobj(deviation) else deviation**2
    if len(members) == 1:
        power[...] = np.nan
    else:
        power /= (2 if np.iscomplexobj(first) else 1) * (len(members) - 1)
    return mean.astype(first.dtype), np.sqrt(power).astype(np.real(first).dtype)
