"""How fast the general torch layers are, as ratios to Keras on TensorFlow, in graph mode and compiled by XLA.

    python benchmarks/against_keras.py [--rounds 9] [--cases 1,2,3] [--phases training] [--only GRU]

Each library has a process of its own, as in one process they fight over threads, and one thread. The two take turns,
round by round; a ratio is the median of the ratios of the rounds, below 1 where torch is faster. CPU time is the figure
that repeats on a busy machine, wall time stands beside it. Both sides hold the same weights, drawn by
``gatewise.build``, and read the same input; before they are timed, outputs and gradients are seen to agree.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import gatewise as gw

CASES = {1: (32, 400, 64, 128), 2: (1, 10, 3, 50), 3: (256, 50, 128, 512)}  # batch, steps, features, units
LAYERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("LSTM", {}),
    ("LSTM", {"activation": "relu"}),
    ("LSTM", {"recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"activation": "relu"}),
    ("GRU", {"recurrent_activation": "hard_sigmoid"}),
    ("GRU", {"reset": "before"}),
    ("RNN", {"activation": "hard_sigmoid"}),
    ("RNN", {"activation": "softsign"}),
)
PHASES = ("inference", "training")
MODES = ("graph", "jit")
SCALE = 0.5  # of the weights that are drawn: with them as they are, relu would grow over 400 steps
TURN, BUDGET = 0.03, 3.0  # seconds of one turn at least, and of all turns of one line at most, unless that is too few
FEWEST = 3

Call = Callable[[], list[Any]]  # one run: the output, or the output and the gradients of input and weights


# ---------------------------------------------------------------------------------- in the processes of the libraries


def _keras(kind: str, options: dict[str, Any], phase: str, x: np.ndarray, units: int) -> dict[str, Any]:
    """Return Keras's ways to run a layer."""
    import tensorflow as tf

    layer = gw.build(getattr(gw, kind)(x.shape[2], units, **options), "keras")
    layer.set_weights([SCALE * weight for weight in layer.get_weights()])
    weights = [variable.value for variable in layer.trainable_variables]

    def inference(given: Any) -> Any:
        return [layer(given)[0]]

    def training(given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            output = layer(given, training=True)[0]
            loss = tf.reduce_sum(output)
        return [output, *tape.gradient(loss, [given, *weights])]

    function, given = {"inference": inference, "training": training}[phase], tf.constant(x)
    compiled = {mode: tf.function(function, jit_compile=mode == "jit") for mode in MODES}
    return {mode: lambda mode=mode: compiled[mode](given) for mode in MODES}


def _torch(kind: str, options: dict[str, Any], phase: str, x: np.ndarray, units: int) -> dict[str, Any]:
    """Return our way to run a layer."""
    import torch

    spec = getattr(gw, kind)(x.shape[2], units, **options)
    layer = gw.build(spec, f"torch:general.{kind}")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(SCALE)
    if kind != "GRU" or options.get("reset") == "before":
        layer.bias_hh_l0.requires_grad_(False)  # Keras has one bias there, and gatewise.port freezes the other
    given = torch.from_numpy(x)

    def inference() -> Any:
        with torch.no_grad():
            return [layer(given)[0]]

    def training() -> Any:
        with torch.enable_grad():
            watched = given.clone().requires_grad_()
            layer.zero_grad(set_to_none=True)
            output, _ = layer(watched)
            output.sum().backward()
            gradients = [parameter.grad for parameter in layer.parameters() if parameter.requires_grad]
            return [output.detach(), watched.grad, *gradients]

    layer.train(phase == "training")
    return {"torch": {"inference": inference, "training": training}[phase]}


def _norms(found: list[Any]) -> list[float]:
    """Return norms: of the output, of the input's gradient, of all others together, as the two hold weights apart."""
    norms = [float(np.linalg.norm(each)) for each in found]
    return [*norms[:2], math.hypot(*norms[2:])]


def _serve(library: str) -> None:
    """Answer requests, a line of JSON each, until there are no more.

    ``["prepare", layer, phase, case]`` is answered with the norms of what each way gives, ``["run", way, times]`` with
    seconds of CPU and of the clock for one of these times.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    if library == "keras":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    else:
        import torch

        torch.set_num_threads(1)
    ways: dict[str, Call] = {}
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        if request == "prepare":
            ways.clear()
            number, phase, case = arguments
            batch, steps, features, units = CASES[case]
            x = np.random.default_rng(0).normal(size=(batch, steps, features)).astype(np.float32)
            ways.update({"keras": _keras, "torch": _torch}[library](*LAYERS[number], phase, x, units))
            norms = {way: _norms(call()) for way, call in ways.items()}
            answers.write(json.dumps(norms) + "\n")
        else:
            way, times = arguments
            call = ways[way]
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(times):
                call()
            taken = ((time.process_time() - cpu) / times, (time.perf_counter() - wall) / times)
            answers.write(json.dumps(taken) + "\n")


# ---------------------------------------------------------------------------------------------------- in the parent


class Worker:
    """The process of one library."""

    def __init__(self, library: str) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=environment,
        )

    def ask(self, *request: Any) -> Any:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.said.seek(0)
            raise RuntimeError(f"No answer to {request}:\n{self.said.read()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self.said.close()


def _agree(layer: str, found: dict[str, list[float]]) -> None:
    first = found["torch"]
    for way, norms in found.items():
        if not all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(first, norms, strict=True)):
            raise RuntimeError(f"{layer}: the sides do not compute the same: torch {first}, {way} {norms}")


def measure(
    rounds: int = 9, cases: Iterable[int] = CASES, phases: Iterable[str] = PHASES, only: str = ""
) -> list[tuple[str, str, int, dict[str, tuple[float, ...]]]]:
    """Measure all layers, phases and cases; print the ratios and return them.

    Args:
        rounds: How often the two take turns; fewer where that would take more than some seconds.
        cases: Which of ``CASES``.
        phases: Which of ``PHASES``.
        only: What the name of a layer begins with.

    Returns:
        Layer, phase, case, and for each mode of Keras the ratios of CPU time and of wall time.
    """
    ours, theirs = Worker("torch"), Worker("keras")
    sides = {"torch": ours, **dict.fromkeys(MODES, theirs)}
    found = []
    print("gatewise_torch / Keras on TensorFlow, one thread each; below 1 torch is faster. Times are of CPU, in ms.")
    print(f"{'':42} {'':10} {'':4}  {'graph mode':13} {'jit_compile':13}")
    print(
        f"{'layer':42} {'phase':10} case  {'cpu':>5} {'wall':>6}  {'cpu':>5} {'wall':>6}      torch     graph       jit"
    )
    try:
        for number, (kind, options) in enumerate(LAYERS):
            name = f"{kind}({', '.join(f'{key}={value}' for key, value in options.items())})"
            if not name.startswith(only):
                continue
            for phase in phases:
                for case in cases:
                    _agree(
                        name, {**ours.ask("prepare", number, phase, case), **theirs.ask("prepare", number, phase, case)}
                    )
                    once = {way: side.ask("run", way, 1)[1] for way, side in sides.items()}
                    times = {way: max(1, min(300, round(TURN / max(taken, 1e-6)))) for way, taken in once.items()}
                    turn = sum(once[way] * times[way] for way in sides)
                    met: dict[str, list[tuple[float, float]]] = {way: [] for way in sides}
                    for _ in range(max(FEWEST, min(rounds, int(BUDGET / max(turn, 1e-9))))):
                        for way, side in sides.items():
                            met[way].append(side.ask("run", way, times[way]))
                    ratios = {
                        mode: tuple(
                            statistics.median(
                                mine[i] / its[i] for mine, its in zip(met["torch"], met[mode], strict=True)
                            )
                            for i in (0, 1)
                        )
                        for mode in MODES
                    }
                    found.append((name, phase, case, ratios))
                    figures = "  ".join(f"{cpu:5.2f} {wall:6.2f}" for cpu, wall in ratios.values())
                    spent = " ".join(f"{statistics.median(cpu for cpu, _ in met[way]) * 1e3:9.3f}" for way in sides)
                    slower = [mode for mode, (cpu, _) in ratios.items() if cpu > 1]
                    flag = f"  <-- above {' and '.join(slower)}" if slower else ""
                    print(f"{name:42} {phase:10} {case:4}  {figures}  {spent}{flag}", flush=True)
    finally:
        ours.close()
        theirs.close()
    return found


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", default="1,2,3")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--only", default="", help="what the name of a layer begins with, such as GRU")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _serve(arguments.worker)
    else:
        cases = [int(case) for case in arguments.cases.split(",")]
        measure(arguments.rounds, cases, arguments.phases.split(","), arguments.only)


if __name__ == "__main__":
    main()
