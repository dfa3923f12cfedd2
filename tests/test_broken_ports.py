"""Random models, and ports of them that are broken in one option or one weight: none passes that differs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import random_models

import gatewise as gw
from gatewise.errors import GatewiseError
from gatewise.parity.compare import SEEN, change
from gatewise.parity.faults import faults
from gatewise.parity.reference import Reference
from gatewise.parity.subject import side
from gatewise.parity.trials import Feeding


def other_option(here, rng):
    """Return a copy with one option of one layer changed, or None where no layer has another that can be built."""
    reference = Reference.of(here)
    made = [each for each in faults(reference, (), states=False) if each.option]
    for choice in rng.permutation(len(made)):
        wrong = made[choice].plant(reference)
        if wrong.layers and all(any(layer.name == name for layer in here.network.layers) for name in wrong.layers):
            layers = [
                dataclasses.replace(layer, spec=wrong.layers[layer.name].spec, inputs=wrong.layers[layer.name].inputs)
                if layer.name in wrong.layers
                else layer
                for layer in here.network.layers
            ]
            try:
                network = gw.Network(tuple(layers), here.network.outputs)
                return made[choice], here.rebuilt(network, here.dtype())
            except (GatewiseError, ValueError):
                continue  # A layer behind it cannot read what it gives.
    return None


def other_weight(here, rng):
    """Return a copy with one number of one weight changed."""
    copy = here.twin(here.dtype())
    natives = copy.adapter.natives(copy.obj)
    name = random_models.pick(rng, *(layer.name for layer in here.network.weighted))
    arrays = {key: np.array(array) for key, array in copy.adapter.read(natives[name]).items()}
    key = random_models.pick(rng, *arrays)
    arrays[key][tuple(int(rng.integers(size)) for size in arrays[key].shape)] += random_models.pick(rng, 0.01, -0.1, 1)
    copy.adapter.write(natives[name], arrays)
    return (name, key), copy


def compare_broken(keras, seeds):
    """Compare each model with its port, and with one that is broken, on inputs of its own kind."""
    true, broken = [], 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = random_models.draw_model(keras, rng)
        here = side(gw.port(model, to="torch"))
        true.append(gw.verify(model, here.obj).verdict)
        assert true[-1] != "failed", (seed, gw.describe(model))
        made = (rng.random() < 0.5 and other_option(here, rng)) or other_weight(here, rng)
        parity, source, feeding = gw.verify(model, made[1].obj), side(model), Feeding(here.network)
        for trial in [feeding.draw(rng, 8, 7) for _ in range(2)]:
            differs = change(source.run(trial), made[1].run(trial)) > SEEN * parity.tolerance
            assert not (differs and parity.verdict == "passed"), (seed, made[0], str(parity))
            broken += differs
        keras.utils.clear_session(free_memory=False)
    assert broken > len(true) / 2
    assert true.count("passed") > 0.9 * len(true)


def test_no_broken_port_passes(keras, torch):
    compare_broken(keras, range(5100, 5104))


@pytest.mark.long
@pytest.mark.parametrize("block", range(30))
def test_no_broken_port_passes_in_many(keras, torch, block):
    compare_broken(keras, range(6000 + 10 * block, 6010 + 10 * block))
