"""Random Keras models of the layers that the ports know, with weights that hide no mistake."""

from __future__ import annotations

ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "elu", "softplus", "softmax")
"""The last is left out where there is one unit: Keras warns of a softmax over one."""

MERGES = ("concat", "sum", "mul", "ave", None)
CELLS = ("LSTM", "LSTM", "LSTM", "GRU", "SimpleRNN")


def pick(rng, *choices):
    """Return one of some values, whatever their type."""
    return choices[int(rng.integers(len(choices)))]


def fill(model, rng, scale=0.5):
    """Give every weight a normal value: no bias is zero, no gate is like another; most biases open a relu."""
    weights = [rng.normal(0, scale, weight.shape) + scale * ("bias" in weight.name) for weight in model.weights]
    model.set_weights([array.astype(old.dtype) for array, old in zip(weights, model.get_weights(), strict=True)])
    return model


def activation(rng, width):
    """Return the name of an activation for some units."""
    return pick(rng, *(ACTIVATIONS if width > 1 else ACTIVATIONS[:-1]))


def draw_model(keras, rng, dtype="float32", cells=CELLS):
    """Return a random chain of one to five layers behind its input: sequential or functional, one output or several."""
    layers = keras.layers
    width, steps = int(rng.integers(1, 5)), pick(rng, None, None, None, 6)
    tokens = rng.random() < 0.3
    source = keras.Input((steps,) if tokens else (steps, width), dtype=pick(rng, "int32", None) if tokens else dtype)
    chain = []
    if tokens:
        chain.append(layers.Embedding(int(rng.integers(3, 9)), width, dtype=dtype))
    sequence, outputs_apart, wide = True, False, width
    for place in range(last := int(rng.integers(1, 5))):
        at_end = place == last - 1
        kind = pick(rng, "cell", "cell", "cell", "bidirectional", "bidirectional", "dense", "distributed", "other")
        units = int(rng.integers(1, 5))
        if sequence and (kind in ("cell", "bidirectional") or place == 0):
            sequences = bool(rng.random() < (0.5 if at_end else 0.85))
            options = {
                "return_sequences": sequences,
                "return_state": bool(at_end and rng.random() < 0.4),
                "use_bias": bool(rng.random() < 0.8),
                "activation": pick(rng, "tanh", "tanh", "relu"),
                "go_backwards": bool(kind == "cell" and rng.random() < 0.2),
            }
            one = getattr(layers, pick(rng, *cells))(units, **options, dtype=dtype)
            if kind == "bidirectional":
                merge = pick(rng, *(MERGES if at_end else MERGES[:-1]))
                outputs_apart = merge is None
                other = {}
                if rng.random() < 0.2 and not options["return_state"]:  # the two directions are unlike
                    kind = getattr(layers, pick(rng, *cells))
                    other["backward_layer"] = kind(units, **options | {"go_backwards": True}, dtype=dtype)
                one = layers.Bidirectional(one, merge_mode=merge, dtype=dtype, **other)
            outputs_apart |= options["return_state"]
            sequence, wide = sequences, units
        elif kind in ("dense", "cell", "bidirectional"):
            one = layers.Dense(units, activation(rng, units), use_bias=bool(rng.random() < 0.8), dtype=dtype)
            wide = units
        elif kind == "distributed" and sequence:
            one = layers.TimeDistributed(layers.Dense(units, activation(rng, units), dtype=dtype), dtype=dtype)
            wide = units
        else:
            one = pick(
                rng,
                layers.Dropout(0.3, dtype=dtype),
                layers.Activation(activation(rng, wide), dtype=dtype),
            )
        chain.append(one)
    if not outputs_apart and rng.random() < 0.5:
        model = keras.Sequential([source, *chain])
    else:
        made = source
        for one in chain:
            made = one(made)
        model = keras.Model(source, made)
    return fill(model, rng)


def draw_inputs(model, rng, batch=3, steps=5):
    """Return an array that a model can read."""
    [source] = model.inputs
    shape = (batch, *(steps if size is None else size for size in source.shape[1:]))
    first = model.layers[1] if type(model).__name__ == "Functional" else model.layers[0]
    if hasattr(first, "input_dim"):
        return rng.integers(0, first.input_dim, shape).astype("int32")
    return rng.normal(size=shape).astype("float32")
