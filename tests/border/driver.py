"""Runs that are cut, in forked children of one process that has imported everything: ``driver.py SCENARIO FOLDER``.

Prints one JSON object.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import h5netcdf  # noqa: E402, F401 - imported before the forks
import torch  # noqa: E402
from tiny import Temperature, Waves  # noqa: E402

from scidiff import store  # noqa: E402, F401
from scidiff.errors import Interrupted  # noqa: E402
from scidiff.posterior import MMPS  # noqa: E402
from scidiff.reconstruction import reconstruct  # noqa: E402
from scidiff.samplers import DPMSolver  # noqa: E402

torch.set_num_threads(1)
MEMBERS, BATCH, STEPS = 5, 2, 6


def run(output, **options):
    problem = Temperature()
    truth, observation = problem.case()
    sampler = MMPS(sampler=DPMSolver(steps=STEPS))
    settings = {"batch": BATCH, "members": MEMBERS, "figures": False, "truth": truth, "device": "cpu"} | options
    reconstruct(problem, observation, sampler, output=output, **settings).close()


def sha(folder):
    return hashlib.sha256((Path(folder) / "result.nc").read_bytes()).hexdigest()


def child(task):
    """Exit code of the task in a fork: 0, 75, 130 as on the command line, or minus the signal that ended it."""
    process = os.fork()
    if process == 0:
        code = 0
        try:
            task()
        except Interrupted as error:
            print(error, file=sys.stderr)
            code = 75
        except KeyboardInterrupt as error:
            print(error, file=sys.stderr)
            code = 130
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            print(type(error), error, file=sys.stderr)
            code = 1
        os._exit(code)
    status = os.waitpid(process, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_at_every_rename(folder):
    """SIGKILL just before the k-th rename, for every k until a run gets through; then resume."""
    whole = folder / "whole"
    assert child(lambda: run(whole)) == 0
    found = []
    for k in range(1, 100):

        def cut(k=k):
            seen, replace = 0, os.replace

            def fatal(source, target):
                nonlocal seen
                seen += 1
                if seen == k:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(source, target)

            os.replace = fatal
            run(folder / f"cut{k}")

        code = child(cut)
        if code == 0:
            break
        resumed = child(lambda k=k: run(folder / f"cut{k}", resume=True))
        out = folder / f"cut{k}"
        found.append({"cut": code, "resumed": resumed, "same": sha(out) == sha(whole), "files": sorted(os.listdir(out))})
    return {"runs": found, "files": sorted(os.listdir(whole))}


def signals_in_a_step(folder):
    """Each signal in a step of the second batch; then resume."""
    whole = folder / "whole"
    assert child(lambda: run(whole)) == 0
    found = {}
    for number in (signal.SIGINT, signal.SIGKILL):
        out = folder / number.name
        calls = 0

        def cut(step, steps, sigma, u, number=number):
            nonlocal calls
            calls += 1
            if calls == STEPS + 3:
                os.kill(os.getpid(), number)

        code = child(lambda out=out, cut=cut: run(out, callback=cut))
        kept = sorted(p.name for p in (out / ".members").glob("member_*.json"))
        refused = child(lambda out=out: run(out))
        other = child(lambda out=out: run(out, resume=True, seed=1))
        resumed = child(lambda out=out: run(out, resume=True, batch=None))
        again = child(lambda out=out: run(out, resume=True))
        found[number.name] = {
            "code": code, "kept": kept, "refused": refused, "other": other, "resumed": resumed, "again": again,
            "same": sha(out) == sha(whole),
        }  # fmt: skip
    return found


def full_disk(folder):
    """A limit on the size of files stands for a full disk; then resume without it."""
    whole = folder / "whole"
    assert child(lambda: run(whole)) == 0
    found = {}
    for limit in (100, 280, 2000, 8000, 20000):
        out = folder / str(limit)

        def limited(out=out, limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            run(out)

        code = child(limited)
        kept = len(list((out / ".members").glob("member_*.json")))
        resumed = child(lambda out=out: run(out, resume=True))
        found[limit] = {"code": code, "kept": kept, "resumed": resumed, "same": sha(out) == sha(whole)}
    return found | {"size": os.path.getsize(whole / "result.nc")}


def memory(folder):
    """Peak memory of runs of 8 and of 64 members, in bytes above that of the process before."""
    found = {"field": 4 * 640 * 512}
    for members in (8, 64):
        note = folder / f"{members}.txt"

        def task(members=members, note=note):
            problem = Waves()
            sampler = MMPS(sampler=DPMSolver(steps=1), iterations=1)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = reconstruct(
                problem, problem.data(), sampler, members=members, batch=2, output=folder / str(members), device="cpu"
            )
            assert result["height"].shape == (members, 640, 512)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            note.write_text(str(1024 * (after - before)))

        found[str(members)] = int(note.read_text()) if child(task) == 0 else None
    return found


if __name__ == "__main__":
    warnings.simplefilter("error")
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
