"""Operators in files: what comes back, what is refused, and how bad files are named."""

import json
import sys
from pathlib import Path

import numpy as np
import pint
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scidiff.errors import InputError
from scidiff.operators import (
    BlackBox,
    CartesianMRI,
    Convolution,
    Downsampling,
    Identity,
    Linear,
    Mask,
    RealField,
    Subprocess,
    load,
    save,
    stack,
)
from scidiff.operators.algebra import Algebra
from scidiff.testing import check_operator

F64 = torch.float64


def randn(*shape: int, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


class Scanner(Algebra):
    """An operator of a user with all kinds of arguments."""

    def __init__(self, weights, /, pixel, *angles, names=("a",), options=None, noise=1.0, **more) -> None:
        self.weights, self.pixel, self.angles = weights, pixel, angles
        self.names, self.options, self.noise, self.more = names, options, noise, more

    def __call__(self, x):
        return x * float(self.weights.sum()) * self.noise

    def adjoint(self, y):
        return self(y)


def test_arguments_of_every_kind_come_back_as_they_were(tmp_path: Path) -> None:
    units = pint.get_application_registry()
    given = Scanner(
        np.arange(6, dtype=np.float32).reshape(2, 3),
        units.Quantity(0.25, "mm"),
        1,
        2.5,
        None,
        names=("x", ["y", True]),
        options={"far": float("inf"), "turn": 1 - 2j, "kind": torch.float16, "where": torch.device("cpu")},
        noise=np.float64(0.1),
        angles_at=units.Quantity(randn(3).numpy(), "degree"),
    )
    save(given, tmp_path / "scanner.safetensors")
    back = load(tmp_path / "scanner.safetensors")
    assert type(back) is Scanner and list(back.arguments) == list(given.arguments)
    assert isinstance(back.weights, np.ndarray) and back.weights.dtype == np.float32
    np.testing.assert_array_equal(back.weights, given.weights)
    assert back.pixel == given.pixel and str(back.pixel.units) == "millimeter"
    assert back.angles == (1, 2.5, None) and back.names == ("x", ["y", True])
    assert back.options == given.options and back.noise == 0.1
    found, expected = back.more["angles_at"], given.more["angles_at"]
    assert found.units == expected.units and np.array_equal(found.magnitude, expected.magnitude)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32])
def test_tensors_keep_type_values_and_a_usable_address(tmp_path: Path, dtype: torch.dtype) -> None:
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) > 0.5  # 35 bytes push others off their place
    if dtype.is_complex:
        maps = randn(3, 5, 7, dtype=dtype)
        operator = RealField(CartesianMRI(maps.conj() * 1j, mask)) @ Convolution(randn(3, 3)[::2, ::2].mT, (5, 7))
    else:
        operator = Mask(mask) @ Convolution(randn(3, 3, dtype=dtype), (5, 7))
    operator.save(tmp_path / "a")
    again = operator.load(tmp_path / "a")
    x = randn(2, 1, 5, 7, dtype=dtype.to_real())
    assert torch.equal(again(x), operator(x)) and repr(again) == repr(operator)


def test_operators_that_are_not_exported_are_found_by_their_module(tmp_path: Path) -> None:
    class Mask(Algebra):  # another one of that name
        def __call__(self, x):
            return 2 * x

    Mask.__module__, Mask.__qualname__ = "scidiff.interop.somewhere", "Mask"
    Algebra._kinds["scidiff.interop.somewhere.Mask"] = Mask
    try:
        save(Mask(), tmp_path / "a")
        assert type(load(tmp_path / "a")) is Mask
    finally:
        del Algebra._kinds["scidiff.interop.somewhere.Mask"]


def test_a_file_holds_json_and_numbers_only(tmp_path: Path) -> None:
    operator = 2 * stack([Downsampling(2, (4, 6), kernel=randn(4)), Identity()], (4, 6)).normal()
    save(operator, str(tmp_path / "stack.safetensors"))
    with safe_open(tmp_path / "stack.safetensors", framework="pt") as file:
        record = json.loads(file.metadata()["scidiff.operator"])
        assert list(file.keys()) == ["Scaled.operator.Normal.operator.Stack.operators.0.Downsampling.kernel"]
    assert record["format"] == 1 and record["operator"]["class"] == "Scaled"
    assert [path.name for path in tmp_path.iterdir()] == ["stack.safetensors"]  # nothing temporary is left
    check_operator(load(tmp_path / "stack.safetensors"), (4, 6))


def test_code_is_not_saved(tmp_path: Path) -> None:
    for operator, message in (
        (BlackBox(np.abs), "BlackBox runs code"),
        (Subprocess(["rm", "{input}", "{output}"]), "Subprocess runs code"),
        (Identity() + BlackBox(np.abs), "Sum.operators.1: BlackBox runs code"),
        (Linear(lambda x: x, (3,)), "Linear.function is '<lambda>'"),
        (torch.sin @ Mask(torch.ones(3, dtype=torch.bool)), "Composition.operators.0 is 'sin'"),
        (Scanner(randn(2).to_sparse(), 1.0), "Scanner.weights is a torch.sparse_coo tensor"),
    ):
        with pytest.raises(TypeError, match=message):
            save(operator, tmp_path / "code")
    assert not list(tmp_path.iterdir())


def write(path: Path, record, **tensors) -> Path:
    text = record if isinstance(record, str) else json.dumps(record)
    save_file(tensors or {"none": torch.zeros(1)}, path, metadata={"scidiff.operator": text})
    return path


def test_bad_files_are_named_with_the_field(tmp_path: Path) -> None:
    path = tmp_path / "operator.safetensors"
    mask = {"class": "Mask", "arguments": {"mask": {"tensor": "m"}}}

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            load(path)
        assert str(path) in str(caught.value)

    refused("no such file")
    path.write_bytes(b"not tensors at all")
    refused("expected a safetensors file")
    save(Mask(torch.ones(400, dtype=torch.bool)), path)
    path.write_bytes(path.read_bytes()[:-100])
    refused("expected a safetensors file")
    save_file({"a": torch.ones(2)}, path)
    refused("no field 'scidiff.operator'")
    write(path, "{")
    refused("damaged")
    write(path, {"format": 2, "operator": mask})
    refused("has format 2, this scidiff reads format 1")
    write(path, {"format": 1})
    refused("damaged .*'operator'")
    write(path, {"format": 1, "operator": mask})
    refused("damaged .*'m'")
    write(path, {"format": 1, "operator": mask}, m=torch.ones(3))
    refused("Mask does not accept what the file holds: mask must be boolean")
    write(path, {"format": 1, "operator": {**mask, "class": "Maskk"}})
    refused("unknown operator 'Maskk'; did you mean 'Mask'?")
    write(path, {"format": 1, "operator": {"class": "Mask", "arguments": {"maks": 3}}})
    refused("Mask was made with maks=, .* did you mean 'mask'?")
    write(path, {"format": 1, "operator": {"class": "Mask", "arguments": {}}})
    refused("missing 1 required positional argument")
    write(path, {"format": 1, "operator": {"spell": 3}})
    refused("unknown kind 'spell'")
    write(path, {"format": 1, "operator": [1, 2]})
    refused("expected an operator, found list")
    write(path, {"format": 1, "operator": {"class": "Subprocess", "arguments": {"command": ["{input}", "{output}"]}}})
    refused("Subprocess runs code, which no file may bring")


def test_loading_imports_no_module_that_a_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "innocent.py").write_text("raise SystemExit('ran code of a file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path / "a", {"format": 1, "operator": {"class": "innocent.Operator", "arguments": {}}})
    with pytest.raises(InputError, match="`import innocent` before loading"):
        load(path)
    assert "innocent" not in sys.modules
    for name in ("save", "mri", "os.system", "Recorded", "scidiff.operators.nothing.Mask", "scidiff.__main__.Mask"):
        write(path, {"format": 1, "operator": {"class": name, "arguments": {}}})
        with pytest.raises(InputError, match="unknown operator|not part of scidiff|expected an operator"):
            load(path)
