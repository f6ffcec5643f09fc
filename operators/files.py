"""Operators in files: what they were made of, as JSON in the metadata of a safetensors file that holds the tensors.

A file names classes and holds numbers, no code. Loading calls the constructors of operators of scidiff, or of your own
where the module that defines them is imported already; it starts no program and imports nothing but scidiff.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scidiff.operators as ours
from scidiff.arguments import near
from scidiff.errors import InputError
from scidiff.operators import combined  # noqa: F401 - whose classes register themselves
from scidiff.operators.algebra import Algebra
from scidiff.operators.recorded import Recorded, known_as

__all__ = ["load", "save"]

FORMAT = 1
_KEY = "scidiff.operator"
_COMBINED = "scidiff.operators.combined"
_OURS = re.compile(r"scidiff\.(operators|interop)(\.[a-z]\w*)+")  # modules that a file may make us import


def save(operator: Algebra, path: str | os.PathLike[str]) -> None:
    """Writes an operator, or one made of operators, to a safetensors file; `load` gives an equal one.

    Arguments:
        operator: An operator of scidiff, or of your own if its class inherits from `Algebra`.
        path: Written under another name first, so there is never half a file.

    Raises:
        TypeError: if it is made of something that a file cannot hold, such as a Python function.
    """
    from safetensors.torch import save as write

    tensors: dict[str, Tensor] = {}
    content = _encode(operator, "", tensors)
    metadata = {_KEY: json.dumps({"format": FORMAT, "operator": content}, allow_nan=False)}
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(write(tensors, metadata=metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Algebra:
    """Reads an operator that `save` wrote.

    Arguments:
        path: The file.
        device: Where its tensors shall live.

    Raises:
        InputError: if the file is none of ours, is of a later format, or names a class or an argument that this version
            of scidiff does not have.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file; expected one that scidiff.operators.save wrote.")
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            # Copies: numbers mapped from the file need not lie at an address that complex arithmetic can use.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise InputError(f"{path}: expected a safetensors file, cannot be read ({error}).") from error
    if _KEY not in metadata:
        raise InputError(f"{path}: the metadata has no field {_KEY!r}, so this is no operator written by scidiff.")
    try:
        record = json.loads(metadata[_KEY])
        found = record["format"]
        if found != FORMAT:
            raise InputError(
                f"{path}: {_KEY} has format {found!r}, this scidiff reads format {FORMAT}; "
                "update scidiff, or write the file again."
            )
        operator = _decode(record["operator"], tensors, str(path))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: the field {_KEY!r} of the metadata is damaged ({error!r}).") from error
    if not isinstance(operator, Algebra):
        raise InputError(f"{path}: expected an operator, found {type(operator).__name__}.")
    return operator


def _encode(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; what needs a mark is a dictionary of one key. ``where`` names it in errors and as a tensor."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, complex):
        return {"complex": [_encode(value.real, where, tensors), _encode(value.imag, where, tensors)]}
    if isinstance(value, Recorded):
        return _encode_parts(value, where, tensors)
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError(
                f"{where} is a {value.layout} tensor, which a file cannot hold; make the operator of indices."
            )
        parts = torch.view_as_real(value.detach().resolve_conj()) if value.is_complex() else value.detach()
        name = where or "tensor"
        tensors[name] = parts.cpu().contiguous().clone()
        return {"complex tensor" if value.is_complex() else "tensor": name}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        parts = [_encode(part, f"{where}.{i}", tensors) for i, part in enumerate(value)]
        return parts if isinstance(value, list) else {"tuple": parts}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(part, f"{where}.{key}", tensors) for key, part in value.items()}}
    if isinstance(value, (torch.dtype, torch.device)):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    other: Any = value
    if hasattr(other, "magnitude") and hasattr(other, "units"):  # pint
        return {"quantity": [_encode(other.magnitude, where, tensors), str(other.units)]}
    if hasattr(other, "__array__") and other.dtype.kind in "fciub":  # numpy
        if not hasattr(other, "__setitem__"):
            return _encode(other.item(), where, tensors)
        return {"array": _encode(torch.from_numpy(other.copy()), where, tensors)}
    raise TypeError(
        f"{where} is {known_as(value)!r}, which a file of numbers cannot hold; save the other parts, and make this one "
        "again in the program that loads them."
    )


def _encode_parts(value: Recorded, where: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if not getattr(value, "storable", True):
        raise TypeError(
            f"{where + ': ' if where else ''}{type(value).__name__} runs code that a file shall not hold; save the "
            "other parts, and make this one again in the program that loads them."
        )
    prefix = f"{where}." if where else ""
    arguments = {
        name: _encode(part, f"{prefix}{type(value).__name__}.{name}", tensors) for name, part in value.arguments.items()
    }
    return {"class": _name(type(value)), "arguments": arguments}


def _name(kind: type) -> str:
    """How a file calls a class: operators that scidiff.operators exports by that name, wherever they live in it."""
    exported = kind.__name__ in ours.__all__ and getattr(ours, kind.__name__) is kind
    short = exported or kind.__module__ == _COMBINED
    return kind.__name__ if short else f"{kind.__module__}.{kind.__qualname__}"


def _decode(content: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if isinstance(content, list):
        return [_decode(part, tensors, path) for part in content]
    if not isinstance(content, dict):
        return content
    if "class" in content:
        return _make(content["class"], content["arguments"], tensors, path)
    ((kind, value),) = content.items()
    match kind:
        case "float":
            return float(value)
        case "complex":
            return complex(*(_decode(part, tensors, path) for part in value))
        case "tensor":
            return tensors[value]
        case "complex tensor":
            return torch.view_as_complex(tensors[value])
        case "array":
            return _decode(value, tensors, path).cpu().numpy()
        case "tuple":
            return tuple(_decode(part, tensors, path) for part in value)
        case "dict":
            return {key: _decode(part, tensors, path) for key, part in value.items()}
        case "dtype":
            return {str(t).removeprefix("torch."): t for t in vars(torch).values() if isinstance(t, torch.dtype)}[value]
        case "device":
            return torch.device(value)
        case "quantity":
            import pint

            return pint.get_application_registry().Quantity(_decode(value[0], tensors, path), value[1])
    raise InputError(f"{path}: holds a value of the unknown kind {kind!r}; update scidiff.")


def _make(name: str, arguments: dict[str, Any], tensors: dict[str, Tensor], path: str) -> Recorded:
    kind = _find(name, path)
    if not getattr(kind, "storable", True):
        raise InputError(f"{path}: {name} runs code, which no file may bring; make it in your program.")
    given = {key: _decode(value, tensors, path) for key, value in arguments.items()}
    signature = inspect.signature(kind)
    unknown = [key for key in given if key not in signature.parameters]
    if unknown:
        raise InputError(
            f"{path}: {name} was made with {unknown[0]}=, which this version of it does not know;"
            f"{near(unknown[0], signature.parameters)} Update scidiff, or make the operator again."
        )
    bound = inspect.BoundArguments(signature, given)  # type: ignore[arg-type]
    try:
        return kind(*bound.args, **bound.kwargs)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {name} does not accept what the file holds: {error}") from error


def _find(name: str, path: str) -> type[Recorded]:
    """A class by its name; for operators of scidiff the module is imported, for no others."""
    module = name.rpartition(".")[0]
    if _OURS.fullmatch(module):
        with contextlib.suppress(ModuleNotFoundError):
            import_module(module)
    exported = getattr(ours, name) if name in ours.__all__ else None
    found = exported if isinstance(exported, type) else None
    found = found or Recorded._kinds.get(name if module else f"{_COMBINED}.{name}")
    if found is not None and issubclass(found, Recorded):
        return found
    if module and not _OURS.fullmatch(module):
        raise InputError(f"{path}: holds {name}, which is not part of scidiff; `import {module}` before loading.")
    raise InputError(f"{path}: holds the unknown operator {name!r};{near(name, ours.__all__)} update scidiff.")
