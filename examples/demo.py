"""Train an LSTM in Keras, port it to PyTorch, prove it, and predict with PyTorch alone.

Run it with ``make demo``. It takes a minute or two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

STEPS = 5
PREDICT = """
import json, sys
import torch
import gatewise as gw

model = gw.load(sys.argv[1])
samples = torch.tensor(json.loads(sys.argv[2]))
with torch.no_grad():
    predictions = model(samples)[:, 0].tolist()
foreign = [name for name in ("tensorflow", "keras") if name in sys.modules]
kind = type(model.lstm)
print(json.dumps({"type": f"{kind.__module__}.{kind.__name__}", "loaded": foreign, "is": predictions}))
"""


def say(number: int, text: str) -> None:
    """Print the head of a step."""
    print(f"\n[{number}/{STEPS}] {text}\n", flush=True)


def quietly(function: Any, *arguments: Any) -> Any:
    """Call a function without what TensorFlow's C++ code writes to stderr while it loads."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        return function(*arguments)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def iris() -> tuple[Any, Any, Any, Any]:
    """Return Iris: 150 flowers of 4 features, each one timestep; the class is the target. 80 % train, 20 % test."""
    import numpy as np
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    features, target = load_iris(return_X_y=True)
    sequences = features.astype(np.float32)[:, None, :]
    parts = train_test_split(sequences, target.astype(np.float32), test_size=0.2, random_state=42)
    return tuple(parts)  # type: ignore[return-value]


def train(train_x: Any, train_y: Any, units: int = 50) -> Any:
    """Train LSTM(units, relu) and Dense(1) for ten epochs with Keras."""
    import keras

    keras.utils.set_random_seed(42)
    layers = [keras.Input((1, 4)), keras.layers.LSTM(units, activation="relu", name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="iris")
    model.compile("adam", "mse")
    log = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print(f"  epoch {epoch + 1:2d}   loss {logs['loss']:.4f}", flush=True)
    )
    model.fit(train_x, train_y, epochs=10, batch_size=32, verbose=0, callbacks=[log])
    return model


def main() -> int:
    """Run the demo; return the exit status."""
    import gatewise as gw
    from gatewise.report.reports import explaining, mapping_table, verifying
    from gatewise.report.tables import Report, render

    say(1, "Keras trains LSTM(50, relu) + Dense(1) on Iris for ten epochs.")
    quietly(__import__, "keras")
    train_x, test_x, train_y, _ = iris()
    model = train(train_x, train_y)

    with tempfile.TemporaryDirectory() as folder:
        keras_file, torch_file = Path(folder, "iris.keras"), Path(folder, "iris.safetensors")
        model.save(keras_file)

        say(2, "gatewise ports the file to PyTorch and proves that the outputs agree.")
        print(f"$ gatewise port {keras_file.name} {torch_file.name}\n")
        from gatewise.live import port_file

        done, parity = port_file(keras_file, torch_file)
        for line in done.remarks:
            print(f"  {line}")
        print(f"\n{render(verifying(parity), 'plain')}")
        if not parity.passed:
            return 1

        say(3, "Why do the two frameworks count differently?")
        network = gw.describe(model)
        spec = network["lstm"].spec
        assert isinstance(spec, gw.LSTM)
        print(f"$ gatewise explain keras torch -x {spec.features} -u {spec.units} --activation relu\n")
        totals = [gw.count(network, framework).total for framework in ("keras", "torch")]
        print(render(explaining(spec, gw.explain(spec, "keras", "torch")), "plain"))
        own = f"{model.count_params():,} by its own count"
        print(f"\nWith the Dense layer: {totals[0]:,} in Keras ({own}), {totals[1]:,} in torch.")

        say(4, "Which slice went where?")
        print(f"$ gatewise map keras torch -x {spec.features} -u {spec.units} --activation relu\n")
        print(render(Report([], [mapping_table(gw.mapping(spec, "keras", "torch"))]), "plain"))

        say(5, "A second process predicts with PyTorch alone.")
        samples = test_x[:5]
        expected = [float(value) for value in model.predict(samples, verbose=0)[:, 0]]
        command = [sys.executable, "-c", PREDICT, str(torch_file), json.dumps(samples.tolist())]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    print(f"  its LSTM is a {answer['type']}; TensorFlow or Keras loaded: {', '.join(answer['loaded']) or 'neither'}\n")
    print("  flower       Keras     PyTorch   difference")
    for number, (keras_value, torch_value) in enumerate(zip(expected, answer["is"], strict=True), 1):
        print(f"  {number:6d}  {keras_value:10.6f}  {torch_value:10.6f}   {abs(keras_value - torch_value):.1e}")
    same = all(abs(a - b) <= 1e-5 * max(1, abs(a)) for a, b in zip(expected, answer["is"], strict=True))
    print("\nThe same predictions." if same else "\nThe predictions DIFFER.")
    return 0 if same and not answer["loaded"] else 1


if __name__ == "__main__":
    sys.exit(main())
