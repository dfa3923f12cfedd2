"""Measures gatewise against what a person would do instead; ``make bench``.

Only ratios within one run mean anything: rounds of the two sides are interleaved, and the median is shown, of whole
programs the minimum. The general torch layers are measured by two scripts of their own: ``layers.py`` against torch.nn,
``against_keras.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import gatewise as gw
from gatewise.core import layout as layouts
from gatewise.core import plan as plans
from gatewise.registry import frameworks
from gatewise.report.tables import Report, Table, render

ROUNDS = 15


def interleaved(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int = ROUNDS,
    of: Callable[[list[float]], float] = statistics.median,
) -> tuple[float, float]:
    """Return the seconds of two functions that are run in turns: the median, or another value of all rounds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, times in zip((ours, theirs), taken, strict=True):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return of(taken[0]), of(taken[1])


def row(what: str, against: str, ours: float, theirs: float) -> list[object]:
    """Return one line of the table, in milliseconds."""
    return [what, f"{ours * 1e3:.2f}", against, f"{theirs * 1e3:.2f}", f"{ours / theirs:.2f}"]


def command_line() -> list[list[object]]:
    """Measure how long a person waits for an answer in a terminal: the least of all rounds."""
    program = str(Path(sys.executable).with_name("gatewise"))

    # Compiled modules are kept, as they are for a user, also where this process was told not to.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)

    numpy = run(sys.executable, "-c", "import numpy")
    count = run(program, "count", "keras", "torch", "-x", "3", "-u", "50")
    bare = run(sys.executable, "-c", "import gatewise")
    return [
        row("gatewise count keras torch -x 3 -u 50", 'python -c "import numpy"', *interleaved(count, numpy, of=min)),
        row("import gatewise", 'python -c "import numpy"', *interleaved(bare, numpy, of=min)),
    ]


def applying(size: int = 1024) -> list[list[object]]:
    """Measure a plan that is applied against the transposes a person writes by hand; both copy."""
    random = np.random.default_rng(0)
    spec = gw.LSTM(size, size)
    plan = gw.mapping(spec, "keras", "torch")
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in plan.source_shapes.items()}

    def ours() -> list[np.ndarray]:
        return [np.ascontiguousarray(array) for array in plan.apply(weights).values()]

    def by_hand() -> list[np.ndarray]:
        bias = weights["bias"].copy()
        kernels = [np.ascontiguousarray(weights[name].T) for name in ("kernel", "recurrent_kernel")]
        return [*kernels, bias, np.zeros_like(bias)]

    return [row(f"apply Keras → torch, {size} units", "transposes by hand", *interleaved(ours, by_hand))]


def planning() -> Table:
    """Measure planning over all ordered pairs of layouts, nothing cached."""
    found: dict[str, list[tuple[float, str]]] = {}
    for spec in (gw.LSTM(3, 50), gw.GRU(3, 50), gw.RNN(3, 50)):
        kind = type(spec).__name__
        all_layouts = [each for record in frameworks() for each in record.layouts if each.cell == spec.cell]
        for source in all_layouts:
            for target in all_layouts:
                best = float("inf")
                for _ in range(3):
                    plans.plan.cache_clear()
                    layouts.store.cache_clear()
                    start = time.perf_counter()
                    len(plans.plan(spec, source, target).steps)
                    best = min(best, time.perf_counter() - start)
                found.setdefault(kind, []).append((best, f"{source} → {target}"))
    rows = []
    for kind, times in found.items():
        worst, pair = max(times)
        rows.append(
            [kind, len(times), f"{statistics.median(t for t, _ in times) * 1e3:.2f}", f"{worst * 1e3:.2f}", pair]
        )
    return Table(
        "Planning a pair, best of three, nothing cached", ["cell", "pairs", "median ms", "worst ms", "worst pair"], rows
    )


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of the layers, at most; 9")
    parser.add_argument("--cases", default="1,2,3", help="sizes of the layers: 1 long, 2 small, 3 wide; 1,2,3")
    parser.add_argument("--short", action="store_true", help="leave the layers out, which take some minutes")
    arguments = parser.parse_args()
    headers = ["gatewise", "ms", "against", "ms", "ratio"]
    tables = [Table("Waiting", headers, [*command_line(), *applying()]), planning()]
    print(
        render(
            Report([f"Medians of {ROUNDS} rounds, minima of whole programs; lower is faster."], tables),
            "plain",
        ),
        flush=True,
    )
    for script in [] if arguments.short else ["layers.py", "against_keras.py"]:
        path = Path(__file__).with_name(script)
        print(flush=True)
        subprocess.run(
            [sys.executable, str(path), f"--rounds={arguments.rounds}", f"--cases={arguments.cases}"], check=True
        )


if __name__ == "__main__":
    main()
