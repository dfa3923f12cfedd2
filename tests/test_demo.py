"""The demo that the README promises, from start to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


def test_the_demo_trains_ports_explains_and_predicts_alike_without_tensorflow() -> None:
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for words in (
        "[1/5]",
        "epoch 10",
        "Parity passed",
        "11,051 in Keras (11,051 by its own count), 11,251 in torch",
        "bias_hh_l0[150:200]",
        "TensorFlow or Keras loaded: neither",
        "The same predictions.",
    ):
        assert words in said
    assert "Traceback" not in done.stderr
