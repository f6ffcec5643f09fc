import errno
import os

import numpy as np
import pytest
import torch

from scidiff.errors import InputError, Interrupted
from scidiff.inference import Ensemble
from scidiff.store import MemberStore, differences, disk_full, is_disk_full, locked, moments


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_moments_are_those_of_an_ensemble_and_keep_digits_far_from_zero(dtype):
    x = 280 + torch.randn(7, 1, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    exact = Ensemble(x.to(torch.complex128 if dtype.is_complex else torch.float64))
    mean, spread = moments(lambda m: x[m, 0].numpy(), range(7))
    assert mean.dtype == x.numpy().dtype and spread.dtype == np.float32
    np.testing.assert_allclose(mean, exact.mean[0], rtol=1e-7)
    np.testing.assert_allclose(spread, exact.spread[0], rtol=1e-6)


def test_the_spread_of_one_member_is_unknown():
    mean, spread = moments(lambda m: np.ones((2, 3)), range(1))
    assert np.isnan(spread).all() and (mean == 1).all()


def test_a_member_counts_once_its_record_is_there(tmp_path):
    store = MemberStore(tmp_path)
    store.start({"seed": 1})
    store.write(3, np.arange(4, dtype=np.complex64), {"chi2": 1.0})
    np.save(tmp_path / ".members" / "member_00004.npy", np.zeros(3))
    assert store.done() == [3]
    assert store.read(3).dtype == np.complex64 and store.record(3) == {"chi2": 1.0}
    store.remove()
    assert not store.exists and os.listdir(tmp_path) == []


def test_a_run_with_other_settings_is_refused_by_name(tmp_path):
    store = MemberStore(tmp_path)
    store.start({"configuration": {"seed": 1, "sampler": {"steps": 8}}, "sha256": {"prior": "ab"}})
    store.check({"configuration": {"seed": 1, "sampler": {"steps": 8}}, "sha256": {"prior": "ab"}})
    with pytest.raises(InputError, match=r"configuration\.sampler\.steps was 8 and is now 9") as caught:
        store.check({"configuration": {"seed": 1, "sampler": {"steps": 9}}, "sha256": {"prior": "cd"}})
    assert "sha256.prior was 'ab' and is now 'cd'" in str(caught.value) and "seed" not in str(caught.value)


def test_differences_compare_as_json():
    assert differences({"a": (1, 2), "b": None}, {"a": [1, 2]}) == []
    assert differences({"a": 1}, {"b": 1}) == ["a was 1 and is now None", "b was None and is now 1"]


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_two_runs_cannot_hold_one_folder_and_a_dead_one_does_not_block(tmp_path):
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(ready[1], b"x")
            os.read(go[0], 1)  # never answered: the parent kills
    os.read(ready[0], 1)
    with pytest.raises(InputError, match=f"another run \\(process {child}\\) writes here"), locked(tmp_path):
        pass
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_an_interruption_that_says_how_to_go_on(code):
    with pytest.raises(Interrupted, match="disk is full.*keep calm"), disk_full(lambda: "keep calm"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(Interrupted), disk_full(lambda: "x"):
        raise RuntimeError(f"Can't decrement id ref count (file write failed: errno = {code}, error message = '...')")


def test_other_errors_pass():
    assert not is_disk_full(OSError(errno.EACCES, "no"))
    with pytest.raises(PermissionError), disk_full(lambda: ""):
        raise PermissionError(errno.EACCES, "no")
