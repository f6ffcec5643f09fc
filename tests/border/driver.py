"""Runs that are cut, in forked children of one process that has imported everything: ``driver.py FOLDER``.

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

from scidiff import record, store  # noqa: E402, F401
from scidiff.errors import Interrupted  # noqa: E402
from scidiff.posterior import MMPS  # noqa: E402
from scidiff.reconstruction import reconstruct  # noqa: E402
from scidiff.samplers import DPMSolver  # noqa: E402

torch.set_num_threads(1)
MEMBERS, BATCH, STEPS = 3, 2, 3


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


def kills(folder):
    """One run, killed again and again just before its k-th rename, so before each of its files appears; then resumed.

    Renames of a fresh run: run.json, config.toml, then field and record of members 0, 1 | 2, result, metrics, run.json;
    of a resumed one: config.toml, then what is missing.
    """
    out, codes = folder / "kills", []
    for k in (1, 2, 3, 4, 5, 6, 3, 4, 3, 4):

        def cut(k=k):
            seen, replace = 0, os.replace

            def fatal(source, target):
                nonlocal seen
                seen += 1
                if seen == k:
                    print("killed before", Path(target).name, file=sys.stderr)
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(source, target)

            os.replace = fatal
            run(out, resume=True)

        codes.append(child(cut))
    codes.append(child(lambda: run(out, resume=True)))
    return {"codes": codes, "same": sha(out) == sha(folder / "whole"), "files": sorted(os.listdir(out))}


def signals(folder):
    """Each signal in a step of the second batch; then resume."""
    found = {}
    for number in (signal.SIGINT, signal.SIGKILL):
        out = folder / number.name
        calls = 0

        def cut(step, steps, sigma, u, number=number):
            nonlocal calls
            calls += 1
            if calls == STEPS + 2:
                os.kill(os.getpid(), number)

        code = child(lambda out=out, cut=cut: run(out, callback=cut))
        kept = sorted(p.name for p in (out / ".members").glob("member_*.json"))
        refused = child(lambda out=out: run(out))
        other = child(lambda out=out: run(out, resume=True, seed=1))
        resumed = child(lambda out=out: run(out, resume=True, batch=None))
        again = child(lambda out=out: run(out, resume=True))
        found[number.name] = {
            "code": code, "kept": kept, "refused": refused, "other": other, "resumed": resumed, "again": again,
            "same": sha(out) == sha(folder / "whole"),
        }  # fmt: skip
    return found


def full_disk(folder):
    """A limit on the size of files stands for a full disk; then resume without it."""
    found = {}
    for limit in (100, 280, 20000):
        out = folder / str(limit)

        def limited(out=out, limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            run(out)

        code = child(limited)
        kept = len(list((out / ".members").glob("member_*.json")))
        resumed = child(lambda out=out: run(out, resume=True))
        found[limit] = {"code": code, "kept": kept, "resumed": resumed, "same": sha(out) == sha(folder / "whole")}
    return found | {"size": os.path.getsize(folder / "whole" / "result.nc")}


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


def main(folder):
    os.fsync = lambda descriptor: None  # what was written survives the end of a process; this saves half the time
    record.source(), record.versions()
    assert child(lambda: run(folder / "whole")) == 0
    scenarios = (kills, signals, full_disk, memory)
    return {"files": sorted(os.listdir(folder / "whole"))} | {task.__name__: task(folder) for task in scenarios}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    warnings.simplefilter("error")
    print(json.dumps(main(Path(sys.argv[1]))))
