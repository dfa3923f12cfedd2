"""Every argument of Keras's recurrent layers, and what a port does with it.

Nothing here imports Keras. A test walks the signatures of the installed Keras, so that no argument can be missing.
"""

from typing import NamedTuple


class Argument(NamedTuple):
    """What becomes of one argument.

    Attributes:
        how: ``"carried"``, it changes the outputs and the port does the same; ``"training"``, it acts in training alone
            and is carried; ``"remark"``, it acts in training alone, is left behind, and the port says so;
            ``"no effect"``, the outputs are the same whatever it is; ``"refused"``, by an error that names it.
        text: How, in a sentence.
    """

    how: str
    text: str


CLASSES = (
    "LSTM GRU SimpleRNN Bidirectional RNN StackedRNNCells LSTMCell GRUCell SimpleRNNCell TimeDistributed Masking "
    "Embedding Dense"
).split()
"""The classes whose constructors and calls are covered."""

_INITIAL = Argument("no effect", "It draws the first weights, which the port overwrites; of a new layer see initial=.")
_SAME = "The same numbers come out either way."

ARGUMENTS: dict[str, Argument] = {
    # sizes and what a cell computes
    "units": Argument("carried", "Size of the state."),
    "activation": Argument(
        "carried", "Any of Keras's by name, as a layer (LeakyReLU) or function; one of your own is refused."
    ),
    "recurrent_activation": Argument("carried", "The same for the gates."),
    "use_bias": Argument("carried", "Without bias there is none on the other side, too."),
    "reset_after": Argument("carried", "After: nn.GRU. Before: gatewise_torch.GRU(reset='before'), another function."),
    "input_dim": Argument("carried", "Rows of the table."),
    "output_dim": Argument("carried", "Columns of the table."),
    # the first weights
    "kernel_initializer": _INITIAL,
    "recurrent_initializer": _INITIAL,
    "bias_initializer": _INITIAL,
    "embeddings_initializer": _INITIAL,
    "unit_forget_bias": Argument("no effect", "Ones in the bias at the start; the bias is carried as it is."),
    "weights": Argument("carried", "First weights are weights."),
    # training alone
    "kernel_regularizer": Argument("training", "A rule on the model; gatewise_torch.penalty(model) adds it up."),
    "recurrent_regularizer": Argument("training", "As kernel_regularizer."),
    "bias_regularizer": Argument(
        "training", "As kernel_regularizer; of two biases on the torch side their sum counts."
    ),
    "embeddings_regularizer": Argument("training", "As kernel_regularizer."),
    "activity_regularizer": Argument("training", "As kernel_regularizer, on what the model's last call gave."),
    "kernel_constraint": Argument("training", "A rule on the model; gatewise_torch.constrain(model) applies it."),
    "recurrent_constraint": Argument("training", "As kernel_constraint."),
    "bias_constraint": Argument("training", "As kernel_constraint."),
    "embeddings_constraint": Argument("training", "As kernel_constraint."),
    "dropout": Argument("training", "One mask on the input for all steps. At 1, SimpleRNN drops all and LSTM nothing."),
    "recurrent_dropout": Argument("training", "One mask a gate on the state for all steps; the input's are so, too."),
    "seed": Argument("no effect", "Seed of the dropout masks, which no two frameworks draw alike."),
    "trainable": Argument("training", "Frozen stays frozen."),
    "training": Argument("training", "Given at the call; the torch side has train() and eval()."),
    # how a layer is run
    "return_sequences": Argument("carried", "All outputs or the last."),
    "return_state": Argument("carried", "The last states behind the output, in Keras's order."),
    "go_backwards": Argument("carried", "Read from the end; outputs in the order of reading."),
    "stateful": Argument("carried", "States go on from batch to batch; reset_state() forgets them."),
    "zero_output_for_mask": Argument("carried", "A masked step gives zeros and not the output before it."),
    "initial_state": Argument(
        "carried",
        "From a layer or input, or a constant. Keras then follows no mask unless given by hand.",
    ),
    "states": Argument("carried", "Of a cell: the states of the step before."),
    "mask": Argument(
        "carried",
        "As Masking or Embedding make it and layers pass it on, or an Input of dtype='bool', or what keras.ops make: "
        "comparisons, logic, any, all and the like.",
    ),
    "sequences": Argument("carried", "The input, (batch, time, features)."),
    "sequence": Argument("carried", "The input of one step, (batch, features)."),
    "inputs": Argument("carried", "The input."),
    "unroll": Argument("no effect", f"{_SAME} Where it would not, backwards under a mask that zeroes, it is refused."),
    "use_cudnn": Argument("no effect", _SAME),
    "implementation": Argument("training", "The same outputs. In training 1 draws one dropout mask a gate."),
    # layers around layers
    "layer": Argument("carried", "What is wrapped: a recurrent layer; in TimeDistributed any layer, or a model."),
    "backward_layer": Argument("carried", "With other options than the forward layer's, two layers and their merge."),
    "merge_mode": Argument("carried", "concat, sum, mul, ave, and None for two outputs."),
    "cell": Argument("carried", "Keras's own cells and gatewise's; others run code that cannot be read."),
    "cells": Argument("carried", "A stack in one scan becomes layers on each other, which compute the same."),
    # masks
    "mask_value": Argument("carried", "A step with this value in every feature is masked."),
    "mask_zero": Argument("carried", "Token 0 is masked."),
    # of every layer
    "name": Argument("carried", "Names stay, as far as Python allows them for attributes."),
    "dtype": Argument("carried", "float32 and float64; half precision becomes float32; quantised layers are refused."),
    "autocast": Argument("no effect", "Inputs of one type need no cast."),
    "lora_rank": Argument("remark", "The low-rank kernel is merged into the other, which stays frozen."),
    "lora_alpha": Argument("remark", "As lora_rank."),
    "quantization_config": Argument("refused", "The weights are whole numbers with a scale; port before it."),
}
"""Argument → what becomes of it, for all classes of ``CLASSES``: a name means the same in each."""
