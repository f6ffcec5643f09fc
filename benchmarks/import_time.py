"""How long do `import scidiff` and `scidiff --help` take? Each is measured in fresh processes.

Targets: `import scidiff` adds less than 0.5 s to torch; `scidiff --help` takes less than 0.5 s.

    python benchmarks/import_time.py [repeats]
"""

import statistics
import subprocess
import sys
import time

CORE = "scidiff.Likelihood, scidiff.Posterior, scidiff.Ensemble, scidiff.reconstruct, scidiff.posterior.names"
CLOCK = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
# name -> (program, target in seconds)
INSIDE = {
    "import torch": (CLOCK.format("import torch"), None),
    "import scidiff": (CLOCK.format("import scidiff"), 0.5),
    "import scidiff and its core, after torch": (f"import torch; {CLOCK.format(f'import scidiff; {CORE}')}", 0.5),
}


def inside(program: str) -> float:
    """Seconds that a program prints about itself."""
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def help_page() -> float:
    """Seconds of the whole process `scidiff --help`, the start of Python included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "scidiff", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    rows = [(name, target, lambda p=program: inside(p)) for name, (program, target) in INSIDE.items()]
    print(f"{'median of ' + str(repeats):<44}{'seconds':>9}{'target':>9}")
    for name, target, measure in [*rows, ("scidiff --help", 0.5, help_page)]:
        measure()  # fills the file cache and the byte code
        print(f"{name:<44}{statistics.median(measure() for _ in range(repeats)):9.3f}{target or '-':>9}")


if __name__ == "__main__":
    main()
