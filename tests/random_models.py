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
    weights = [
        rng.uniform(0.3, 2, weight.shape)
        if "variance" in weight.name
        else rng.normal(0, scale, weight.shape) + scale * ("bias" in weight.name) + ("gamma" in weight.name)
        for weight in model.weights
    ]
    model.set_weights([array.astype(old.dtype) for array, old in zip(weights, model.get_weights(), strict=True)])
    return model


def activation(rng, width):
    """Return the name of an activation for some units."""
    return pick(rng, *(ACTIVATIONS if width > 1 else ACTIVATIONS[:-1]))


def draw_between(keras, rng, dtype, *, sequence, wide, shrinks):
    """Return a layer that stands between recurrent ones, whether it gives a sequence, and how many features.

    Over one or two features a normalisation of each sample gives the same whatever it reads.
    """
    layers, flag = keras.layers, rng.random(3) < 0.7
    affine = {"center": bool(flag[0]), "scale": bool(flag[1]), "epsilon": pick(rng, 1e-3, 1e-2), "dtype": dtype}
    kinds = ["batch"] + ["sample"] * (wide > 2) + ["conv", "conv", "pool", "whole", "spatial"] * bool(sequence)
    kind = pick(rng, *kinds)
    if kind == "batch":
        return layers.BatchNormalization(momentum=pick(rng, 0.99, 0.5), **affine), sequence, wide
    if kind == "sample":
        return layers.LayerNormalization(**affine), sequence, wide
    if kind == "pool":
        pool = pick(rng, layers.MaxPooling1D, layers.AveragePooling1D)
        return pool(pick(rng, 2, 3), pick(rng, None, 1, 2), padding="same", dtype=dtype), True, wide
    if kind == "whole":
        pool = pick(rng, layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D)
        return pool(keepdims=(keep := rng.random() < 0.5), dtype=dtype), bool(keep), wide
    if kind == "spatial":
        return layers.SpatialDropout1D(0.3, dtype=dtype), True, wide
    units = int(rng.integers(1, 5))
    ways = [{"padding": "causal", "dilation_rate": 2}, {"padding": "same", "strides": 2}, {"padding": "same"}]
    ways += [{"padding": "valid"}] * bool(shrinks)
    options = {"use_bias": bool(flag[2]), "activation": activation(rng, units), **pick(rng, *ways)}
    return (
        layers.Conv1D(units, 2 if options["padding"] == "valid" else pick(rng, 1, 3, 4), **options, dtype=dtype),
        True,
        units,
    )


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
    if rng.random() < 0.2:  # a convolution or normalisation in front
        one, sequence, wide = draw_between(keras, rng, dtype, sequence=True, wide=width, shrinks=True)
        chain.append(one)
    for place in range(last := int(rng.integers(1, 5))):
        at_end = place == last - 1
        kind = pick(
            rng, *["cell"] * 3, "bidirectional", "bidirectional", "dense", "distributed", "other", "between", "between"
        )
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
        elif kind == "between":
            shrinks = not any(getattr(layer, "padding", "") == "valid" for layer in chain)
            one, sequence, wide = draw_between(keras, rng, dtype, sequence=sequence, wide=wide, shrinks=shrinks)
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


def draw_mask(keras, rng, source, flags):
    """Return a mask that operations make of numbers (batch, steps, features) and of booleans (batch, steps)."""
    ops, value = keras.ops, pick(rng, 0.0, 0.3, -0.4)
    compare = pick(rng, ops.not_equal, ops.greater, ops.greater_equal, ops.less, ops.less_equal)
    each = compare(source, value) if rng.random() < 0.8 else compare(value, source)
    made = pick(rng, ops.any, ops.all)(each, axis=pick(rng, -1, 2))
    if rng.random() < 0.4:
        made = ops.logical_not(made)
    if rng.random() < 0.5:
        made = pick(rng, ops.logical_and, ops.logical_or)(made, flags)
    return ops.cast(made, "bool") if rng.random() < 0.2 else made


def draw_reuse(keras, rng, dtype="float64", steps=4, features=3, batch=3):
    """Return a model of some uses of one cell, some of them of one layer: stateful or not, masked, ways of its own."""
    source = keras.Input((steps, features), dtype=dtype, batch_size=batch)
    flags = keras.Input((steps,), dtype="bool", batch_size=batch)
    ends, states = _uses(keras, rng, source, flags)
    ends += states
    order = rng.permutation(len(ends))
    return fill(keras.Model([source, flags], [ends[place] for place in order]), rng)


def draw_reuse_on_steps(keras, rng, dtype="float64", steps=4, features=3, batch=3):
    """Return such a model that runs on each step of one or two more time axes."""
    shape = (steps, features)
    source = keras.Input(shape, dtype=dtype, batch_size=batch)
    ends, _ = _uses(keras, rng, source, keras.ops.any(source > 0.4, axis=-1))
    made = keras.layers.Concatenate(dtype=dtype)(ends) if len(ends) > 1 else ends[0]
    for size in (2, 3)[: int(rng.integers(1, 3))]:
        shape = (size, *shape)
        model, source = keras.Model(source, made), keras.Input(shape, dtype=dtype, batch_size=batch)
        made = keras.layers.TimeDistributed(model, dtype=dtype)(source)
    return fill(keras.Model(source, made), rng)


def _uses(keras, rng, source, flags):
    """Return the outputs of some uses of one cell, and the states behind them."""
    layers, dtype, features = keras.layers, source.dtype, source.shape[-1]
    cell = getattr(layers, pick(rng, *CELLS) + "Cell")(features, pick(rng, "tanh", "relu", "softsign"), dtype=dtype)

    def layer():
        names = ("go_backwards", "zero_output_for_mask", "stateful", "return_state")
        return layers.RNN(
            cell, return_sequences=True, dtype=dtype, **{name: bool(rng.random() < 0.5) for name in names}
        )

    own, x, behind = [layer() for _ in range(int(rng.integers(1, 4)))], [source], []
    for _ in range(int(rng.integers(2, 6))):
        reads = x[int(rng.integers(len(x)))]
        for _ in range(int(rng.integers(0, 3))):  # another distance from the end of the model
            reads = layers.Activation("linear", dtype=dtype)(reads)
        given = {"mask": draw_mask(keras, rng, source, flags)} if rng.random() < 0.5 else {}
        made, *states = keras.tree.flatten(own[int(rng.integers(len(own)))](reads, **given))
        x.append(made)
        behind += states
    return x[1:], behind
