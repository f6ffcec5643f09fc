"""What the training loop costs beside a minimal hand-written one: the same network, rows and optimiser.

The hand-written loop draws its fields and noise in one call a step, has no average, no log, no checkpoint and no exact
resume. Both run in turns, so that a busy machine slows both. A step lasts from the end of one to the end of the next;
the ratio is of the medians over all steps of all turns. Checkpoints, one in some hundred steps, are left out.

    python benchmarks/training_throughput.py                     # ratio, target 0.97
    python benchmarks/training_throughput.py --options           # bf16, channels_last, compile, and what each gains
"""

import argparse
import statistics
import tempfile
import time
from itertools import pairwise

import torch

from scidiff.nn import MPUNet, UNet
from scidiff.training import TrainingConfig, train

NETWORKS = {"UNet": UNet, "MPUNet": MPUNet}


def network(kind, width, device):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return NETWORKS[kind](2, width=width, blocks=2, patch=2).to(device)


def field(generator, crop):
    return torch.randn(2, *crop, generator=generator)


def by_hand(net, steps, batch, side, device, layout, tick):
    """EDM's loss, Adam, clipping; fifteen lines."""
    net = net.to(memory_format=layout)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        u = torch.randn(batch, 2, side, side, generator=generator).to(device).contiguous(memory_format=layout)
        eps = torch.randn(u.shape, generator=generator).to(device)
        sigma = (1.2 * torch.randn(batch, 1, 1, 1, generator=generator) - 1.2).exp().to(device)
        root = (1 + sigma**2).sqrt()
        noisy = u + sigma * eps
        denoised = noisy / root**2 + sigma / root * net(noisy / root, sigma.flatten().log() / 4)
        loss = ((1 + sigma**2) / sigma**2 * (denoised - u) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        tick()
    return net


def ours(net, steps, batch, side, device, tick, **options):
    config = TrainingConfig(
        steps=steps, batch=batch, crops=((side, side),), checkpoint_every=10**6, **{"bf16": False, **options}
    )
    with tempfile.TemporaryDirectory() as folder:
        return train(net, field, config, folder, device=device, stop=tick)


class Clock:
    """Notes the time at the end of every step; says "do not stop" to our loop."""

    def __init__(self, device, read=time.perf_counter):
        self.device, self.read, self.times = device, read, []

    def __call__(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.times.append(self.read())
        return False

    def steps(self):
        """Seconds of the steps after the first two; the last, which writes the checkpoint, ends before it."""
        return [b - a for a, b in pairwise(self.times)][1:]


def compare(first, second, repeats, device, read):
    """Median seconds of a step of two loops, which run in turns."""
    times = ([], [])
    for _ in range(repeats):
        for call, found in zip((first, second), times, strict=True):
            clock = Clock(device, read)
            call(clock)
            found.extend(clock.steps())
    return tuple(statistics.median(t) for t in times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--width", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--network", choices=NETWORKS, default="UNet")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true", help="for busy machines: seconds of all our threads")
    parser.add_argument("--options", action="store_true", help="measure bf16, channels_last and compile instead")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    read = time.process_time if a.processor_time else time.perf_counter
    where = torch.cuda.get_device_name() if a.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(f"{a.network} {a.width}, {a.batch} rows of 2x{a.side}x{a.side}, {where}, torch {torch.__version__}")

    def run(**options):
        return lambda tick: ours(
            network(a.network, a.width, a.device), a.steps, a.batch, a.side, a.device, tick, **options
        )

    if not a.options:
        layout = torch.channels_last
        hand = lambda tick: by_hand(  # noqa: E731
            network(a.network, a.width, a.device), a.steps, a.batch, a.side, a.device, layout, tick
        )
        theirs, mine = compare(hand, run(channels_last=True), a.repeats, a.device, read)
        print(f"by hand {1e3 * theirs:.1f} ms a step, scidiff {1e3 * mine:.1f} ms a step")
        print(f"throughput ratio {theirs / mine:.3f} (target 0.97)")
        return
    plain = {"channels_last": False, "bf16": False}
    for options in ({"channels_last": True}, {"bf16": True}, {"channels_last": True, "bf16": True}, {"compile": True}):
        try:
            base, mine = compare(run(**plain), run(**{**plain, **options}), a.repeats, a.device, read)
        except Exception as error:  # torch.compile needs a C++ compiler
            print(f"{options}: not available here ({type(error).__name__})")
            continue
        print(f"{options}: {1e3 * mine:.1f} ms a step, {base / mine:.2f} times as fast as without")


if __name__ == "__main__":
    main()
