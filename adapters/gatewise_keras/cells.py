"""Keras cells for what Keras has none for: what ``torch.nn`` and TensorFlow 1 can do, so that it has a way back.

``Flip`` is a layer: Keras turns sequences round only within ``Bidirectional``. So is ``After``: a Functional model runs
the uses of a layer in an order of its own, which may not be that of one that keeps its states.

A cell runs in ``keras.layers.RNN``, also within ``Bidirectional``, and is saved and loaded as Keras's own. It is
registered as ``gatewise>GeneralLSTMCell``: ``gatewise.load`` knows it, and ``keras.saving.load_model`` does after
``import gatewise_keras.cells``.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from gatewise.errors import SpecError


@keras.saving.register_keras_serializable(package="gatewise")
class GeneralLSTMCell(keras.layers.LSTMCell):  # type: ignore[misc]
    """Keras's ``LSTMCell`` with a projection, peepholes and a bound on the memory.

    Gates lie in Keras's order, i f c o, and all weights are (in, out) as Keras's are. With none of the three options it
    computes what ``keras.layers.LSTMCell`` computes.

    Args:
        units: Size of the memory.
        projection: Size to which the output is projected before it is fed back (``projection_kernel``, (units,
            projection)), or None.
        peepholes: Whether the gates i, f, o see the memory, o the new one: True for one weight a unit
            (``peephole_kernel``, (3 * units,)), ``"full"`` for a matrix, (units, 3 * units).
        cell_clip: Bound on the memory at each step, or None.
        **options: Those of ``keras.layers.LSTMCell``; projection and peepholes are drawn as the kernel is.

    Raises:
        SpecError: One of the three options is out of its range.

    >>> layer = keras.layers.RNN(GeneralLSTMCell(5, projection=2), return_state=True)
    >>> [tuple(output.shape) for output in layer(keras.ops.ones((4, 7, 3)))]
    [(4, 2), (4, 2), (4, 5)]
    """

    def __init__(
        self,
        units: int,
        projection: int | None = None,
        peepholes: bool | str = False,
        cell_clip: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(units, **options)
        sized = isinstance(projection, int) and not isinstance(projection, bool) and projection > 0
        if projection is not None and not sized:
            raise self._misfit("projection", projection, "None or a whole number from 1")
        if not any(peepholes is known or peepholes == known == "full" for known in (False, True, "full")):
            raise self._misfit("peepholes", peepholes, "False, True or 'full'")
        if cell_clip is not None and (isinstance(cell_clip, bool) or not cell_clip > 0):
            raise self._misfit("cell_clip", cell_clip, "None or a number above 0")
        self.projection, self.peepholes, self.cell_clip = projection, peepholes, cell_clip
        self.output_size = units if projection is None else projection
        self.state_size = [self.output_size, units]

    def _misfit(self, option: str, value: object, expected: str) -> SpecError:
        return SpecError(
            f"{option}={value!r} is out of range.", f"GeneralLSTMCell: {option} is {expected}.", f"Change {option}."
        )

    def build(self, input_shape: Any) -> None:
        """Make the weights."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 4 * self.units),
            name="kernel",
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.output_size, 4 * self.units),
            name="recurrent_kernel",
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = self.projection_kernel = self.peephole_kernel = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(4 * self.units,),
                name="bias",
                initializer=self._first_bias if self.unit_forget_bias else self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.projection is not None:
            shape: tuple[int, ...] = (self.units, self.projection)
            self.projection_kernel = self.add_weight(
                shape=shape, name="projection_kernel", initializer=self.kernel_initializer
            )
        if self.peepholes:
            shape = (self.units, 3 * self.units) if self.peepholes == "full" else (3 * self.units,)
            self.peephole_kernel = self.add_weight(
                shape=shape, name="peephole_kernel", initializer=self.kernel_initializer
            )
        self.built = True

    def _first_bias(self, _: Any, *args: Any, **kwargs: Any) -> Any:
        """Draw the bias as Keras does: ones for the forget gate, the initialiser for the others."""
        one, ones = self.bias_initializer, keras.initializers.Ones()
        return ops.concatenate(
            [draw((size * self.units,), *args, **kwargs) for draw, size in ((one, 1), (ones, 1), (one, 2))]
        )

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """Run one step: (batch, features) and the states to the output and the new states."""
        h, c = states
        x = self._product(inputs, self.kernel, self.dropout, self.get_dropout_mask if training else None)
        x = x + self._product(
            h, self.recurrent_kernel, self.recurrent_dropout, self.get_recurrent_dropout_mask if training else None
        )
        if self.bias is not None:
            x = x + self.bias
        i, f, g, o = ops.split(x, 4, axis=-1)
        if self.peephole_kernel is not None:
            of_i, of_f, of_o = ops.split(self.peephole_kernel, 3, axis=-1)
            see = ops.matmul if self.peepholes == "full" else ops.multiply
            i, f = i + see(c, of_i), f + see(c, of_f)
        c = self.recurrent_activation(f) * c + self.recurrent_activation(i) * self.activation(g)
        if self.cell_clip is not None:
            c = ops.clip(c, -self.cell_clip, self.cell_clip)
        if self.peephole_kernel is not None:
            o = o + see(c, of_o)  # the new memory, after its clip
        h = self.recurrent_activation(o) * self.activation(c)
        if self.projection_kernel is not None:
            h = ops.matmul(h, self.projection_kernel)
        return h, [h, c]

    def _product(self, x: Any, kernel: Any, rate: float, mask: Any) -> Any:
        """Multiply by a kernel; in training with Keras's masks, one for all gates or one for each."""
        if mask is None or not 0 < rate < 1:
            return ops.matmul(x, kernel)
        drawn = mask(x)
        if not isinstance(drawn, list):
            return ops.matmul(x * drawn, kernel)
        kernels = ops.split(kernel, 4, axis=-1)
        return ops.concatenate([ops.matmul(x * one, part) for one, part in zip(drawn, kernels, strict=True)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return all options, for saving."""
        own = {"projection": self.projection, "peepholes": self.peepholes, "cell_clip": self.cell_clip}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="gatewise")
class Flip(keras.layers.Layer):  # type: ignore[misc]
    """Turns a sequence round, its first step last.

    Args:
        values: Whether the steps are turned round.
        mask: Whether the mask is that goes on from here.
        **options: Those of every layer.

    >>> Flip()(ops.reshape(ops.arange(3), (1, 3, 1)))[0, :, 0].numpy()
    array([2, 1, 0], dtype=int32)
    """

    def __init__(self, values: bool = True, mask: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.values, self.mask = values, mask
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return (batch, steps, …) in the other order of steps; the mask is for ``compute_mask``."""
        # A copy where nothing is turned: the mask goes with the tensor, and another must not be taken for this one's.
        return ops.flip(inputs, axis=1) if self.values else ops.copy(inputs)

    def compute_mask(self, _: Any, previous_mask: Any = None) -> Any:
        """Return the mask that goes on."""
        return ops.flip(previous_mask, axis=1) if self.mask and previous_mask is not None else previous_mask

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape that came in."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return all options, for saving."""
        return {**super().get_config(), "values": self.values, "mask": self.mask}


@keras.saving.register_keras_serializable(package="gatewise")
class Product(keras.layers.Multiply):  # type: ignore[misc]
    """Keras's ``Multiply`` without a part for masks, as ``Bidirectional`` multiplies; the mask goes on.

    >>> Product()([ops.full((1, 2), 2.0), ops.full((1, 2), 3.0)]).numpy()
    array([[6., 6.]], dtype=float32)
    """

    def _merge_function(self, inputs: Any) -> Any:
        return ops.multiply(*inputs)


@keras.saving.register_keras_serializable(package="gatewise")
class After(keras.layers.Layer):  # type: ignore[misc]
    """Gives the first of two tensors, once the second is there: what reads it runs later.

    >>> After()([ops.ones((1, 2)), ops.zeros((1, 3))]).numpy()
    array([[1., 1.]], dtype=float32)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return the first; its mask goes with it."""
        return inputs[0]

    def compute_mask(self, _: Any, previous_mask: Any = None) -> Any:
        """Return the mask of the first."""
        return previous_mask[0] if previous_mask is not None else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the first."""
        return input_shape[0]
