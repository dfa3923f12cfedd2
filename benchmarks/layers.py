"""How fast the general torch layers are, as ratios to torch.nn's layer of the same size.

    python benchmarks/layers.py [--rounds 15] [--cases 1,2,3] [--memory]
    python benchmarks/layers.py --gpu [--cases 1,2,3]

Both run in one process on one thread, taking turns; a ratio is the median of the ratios of the rounds. CPU time is the
figure that repeats on a busy machine, wall time stands beside it. Weights are small, so that relu does not overflow.
On a GPU wall time counts, and our layer is measured once more as a CUDA graph (``torch.cuda.make_graphed_callables``).
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gatewise_torch
import torch
from torch import nn

CASES = {1: (32, 400, 64, 128), 2: (1, 10, 3, 50), 3: (256, 50, 128, 512)}  # batch, steps, features, units
TARGETS = {"inference": {1: 3.0, 2: 2.3, 3: 1.4}, "training": {1: 1.7, 2: 1.7, 3: 1.3}}
LAYERS = (
    ("LSTM", {}),
    ("LSTM", {"activation": "relu"}),
    ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
    ("LSTM", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
    ("LSTM", {"recurrent_dropout": 0.2}),
    ("GRU", {}),
    ("GRU", {"activation": "relu"}),
    ("GRU", {"recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"reset": "before"}),
    ("RNN", {}),
    ("RNN", {"activation": "hard_sigmoid"}),
    ("RNN", {"activation": "softsign"}),
)


@dataclass(frozen=True)
class Ratio:
    """One line: what our layer takes, over what torch.nn's takes; and what torch.nn's takes, in seconds of CPU."""

    layer: str
    phase: str
    case: int
    cpu: float
    wall: float
    native: float
    target: float


def _pair(kind: str, options: dict[str, Any], case: int) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    batch, steps, features, units = CASES[case]
    torch.manual_seed(0)
    ours = getattr(gatewise_torch, kind)(features, units, **options)
    native = getattr(nn, kind)(features, units)
    with torch.no_grad():
        for layer in (ours, native):
            for parameter in layer.parameters():
                parameter.mul_(0.5)
    return ours, native, torch.randn(steps, batch, features)


def _inference(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    layer.eval()

    def call() -> object:
        with torch.no_grad():
            return layer(x)

    return call


def _training(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    layer.train()
    x = x.clone().requires_grad_()

    def call() -> object:
        for parameter in layer.parameters():
            parameter.grad = None
        x.grad = None
        output, _ = layer(x)
        output.sum().backward()
        return output

    return call


BUDGET, FEWEST = 3.0, 3  # seconds of all turns of one line at most, but so many turns at least

PHASES = {"inference": _inference, "training": _training}


def _time(call: Callable[[], object], times: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - cpu) / times, (time.perf_counter() - wall) / times


def _compare(ours: Callable[[], object], native: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Return the ratios of CPU and of wall time, and the CPU time of the native layer."""
    for call in (ours, native, ours, native):
        call()
    once = max(_time(native, 1)[0], 1e-6)
    times = max(1, min(300, round(0.03 / once)))
    cpu, wall, base = [], [], []
    for number in range(max(FEWEST, min(rounds, int(BUDGET / (2 * once * times))))):
        turn = (ours, native) if number % 2 else (native, ours)
        met = {call: _time(call, times) for call in turn}
        cpu.append(met[ours][0] / met[native][0])
        wall.append(met[ours][1] / met[native][1])
        base.append(met[native][0])
    return statistics.median(cpu), statistics.median(wall), statistics.median(base)


def measure(
    rounds: int = 15, cases: Iterable[int] = CASES, layers: Iterable[Any] = LAYERS, show: bool = True
) -> list[Ratio]:
    """Measure all layers, phases and cases; print the table of ratios and return its lines.

    Args:
        rounds: How often the two take turns; fewer where that would take more than some seconds.
        cases: Which of ``CASES``.
        layers: Pairs of a class and its options; those that fit torch.nn should stand at 1.05.
        show: Whether to print.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []
    try:
        if show:
            print(f"{'layer':60} {'phase':10} case  cpu n  wall n  must  torch.nn ms")
        for kind, options in layers:
            name = f"{kind}({', '.join(f'{key}={value}' for key, value in options.items())})"
            for phase, prepare in PHASES.items():
                for case in cases:
                    ours, native, x = _pair(kind, options, case)
                    cpu, wall, base = _compare(prepare(ours, x), prepare(native, x), rounds)
                    target = TARGETS[phase][case] * (1.0 if kind == "LSTM" else 1.2) if options else 1.05
                    if "recurrent_dropout" in options:
                        target = math.inf  # torch.nn draws no masks: a figure to know, not one to reach
                    found.append(Ratio(name, phase, case, cpu, wall, base, target))
                    if show:
                        flag = "" if cpu <= target else "  <-- above"
                        figures = f"{cpu:5.2f}  {wall:6.2f}  {target:4.2f}  {base * 1e3:11.3f}"
                        print(f"{name:60} {phase:10} {case:4}  {figures}{flag}", flush=True)
    finally:
        torch.set_num_threads(before)
    return found


# ------------------------------------------------------------------------------------------------------------ a GPU


def measure_gpu(rounds: int = 9, cases: Iterable[int] = CASES, layers: Iterable[Any] = LAYERS) -> None:
    """Measure all layers, phases and cases on a GPU, in float32 without TF32; print the table of ratios."""
    torch.backends.cudnn.allow_tf32 = False
    print(f"On {torch.cuda.get_device_name()}, torch {torch.__version__}; wall time.")
    print(f"{'layer':60} {'phase':10} case      n  as a graph  torch.nn ms")
    for kind, options in layers:
        name = f"{kind}({', '.join(f'{key}={value}' for key, value in options.items())})"
        for phase, prepare in PHASES.items():
            for case in cases:
                ours, native, x = (each.cuda() for each in _pair(kind, options, case))
                sides = [prepare(ours, x), prepare(native, x)]
                if "recurrent_dropout" not in options:  # a graph would draw the same masks again and again
                    gc.collect()  # an older graph must not be freed while one is captured
                    captured = copy.deepcopy(ours).train(phase == "training")
                    with torch.set_grad_enabled(phase == "training"):
                        torch.cuda.make_graphed_callables(captured, (x.clone().requires_grad_(),))
                    sides.append(prepare(captured, x))
                taken: list[list[float]] = [[] for _ in sides]
                for _ in range(rounds + 1):
                    for call, times in zip(sides, taken, strict=True):
                        torch.cuda.synchronize()
                        start = time.perf_counter()
                        call()
                        torch.cuda.synchronize()
                        times.append(time.perf_counter() - start)
                mine, theirs, *graph = (statistics.median(times[1:]) for times in taken)
                as_graph = f"{graph[0] / theirs:10.2f}" if graph else f"{'':10}"
                print(
                    f"{name:60} {phase:10} {case:4}  {mine / theirs:5.2f}  {as_graph}  {theirs * 1e3:11.3f}", flush=True
                )


# --------------------------------------------------------------------------------------------------------- memory


def _status(field: str) -> float:
    """Return a field of this process's status in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _peak(kind: str, options: dict[str, Any], case: int, native: bool) -> None:
    """Print by how much two training steps raise this process's memory at its peak, in MiB."""
    torch.set_num_threads(1)
    for layer in (small := _pair(kind, options, 2))[:2]:
        _training(layer, small[2])()
    ours, theirs, x = _pair(kind, options, case)
    call = _training(theirs if native else ours, x)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    call()
    call()
    print(_status("VmHWM") - before)


def measure_memory(cases: Iterable[int] = (1, 3), layers: Iterable[Any] = LAYERS[1:]) -> dict[tuple[str, int], float]:
    """Measure the peak memory of training, each in a process of its own; print and return ratios to torch.nn's."""
    found = {}
    for kind, options in layers:
        for case in cases:
            mine, theirs = (
                float(
                    subprocess.run(
                        [sys.executable, __file__, "--peak", kind, json.dumps(options), str(case), str(native)],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                )
                for native in (0, 1)
            )
            found[f"{kind} {options}", case] = mine / theirs
            print(f"{kind} {options} case {case}: {mine:.0f} MiB, torch.nn {theirs:.0f} MiB: {mine / theirs:.2f}")
    return found


def main() -> None:
    """Run as a script."""
    if sys.argv[1:2] == ["--peak"]:
        kind, options, case, native = sys.argv[2:]
        _peak(kind, json.loads(options), int(case), native == "1")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", default="1,2,3")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args()
    cases = [int(case) for case in arguments.cases.split(",")]
    if arguments.gpu:
        measure_gpu(arguments.rounds, cases)
        return
    measure(arguments.rounds, cases)
    if arguments.memory:
        measure_memory()


if __name__ == "__main__":
    main()
