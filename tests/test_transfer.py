"""Weights carried between models that were written apart: right and proved, or refused with the layers named.

Each pair is written as a user would write it in both frameworks; whether a transfer is right, the frameworks' own
outputs say, on inputs that no transfer has seen.
"""

import numpy as np
import pytest

import gatewise as gw

pytestmark = pytest.mark.filterwarnings("ignore:Protobuf gencode version")

RANDOM = np.random.default_rng(7)


def shaken(model):
    """The Keras model with weights that no initialiser makes alike: biases, factors and statistics, too."""
    for weight in model.weights:
        if "seed" in weight.name:
            continue
        values = RANDOM.normal(0, 0.4, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
    return model


def numbers(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def outputs_of(made):
    import torch

    if isinstance(made, torch.Tensor):
        return [made.detach().numpy()]
    if isinstance(made, tuple | list):
        return [each for one in made for each in outputs_of(one)]
    if isinstance(made, dict):
        return [each for name in sorted(made) for each in outputs_of(made[name])]
    return [np.asarray(made)]


def check(model, module, *fed, to_module=lambda x: x, back=lambda y: y, tolerance=3e-5):
    """Both give the same on inputs that the transfer has not seen."""
    import torch

    was_training = module.training
    with torch.no_grad():
        there = outputs_of(module.eval()(*(torch.as_tensor(to_module(each)) for each in fed)))
    module.train(was_training)
    here = outputs_of(model(fed[0] if len(fed) == 1 else list(fed), training=False))
    assert len(here) <= len(there)
    for mine, yours in zip(here, there, strict=False):
        np.testing.assert_allclose(back(yours), mine, atol=tolerance, rtol=1e-4)


# ── pairs that fit ──────────────────────────────────────────────────────────────────────────────────────────────


def test_other_names_and_shuffled_definition(keras, torch):
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.classify = nn.Linear(8, 4)
            self.memory = nn.LSTM(6, 8, batch_first=True)
            self.lookup = nn.Embedding(20, 6)

        def forward(self, tokens):
            seen, _ = self.memory(self.lookup(tokens))
            return self.classify(seen[:, -1])

    model = shaken(
        keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(20, 6),
                keras.layers.LSTM(8),
                keras.layers.Dense(4),
            ]
        )
    )
    module = Tagger()
    done = gw.transfer(model, module)
    assert done.target is module
    assert done.parity.verdict == "passed"
    check(model, module, RANDOM.integers(0, 20, (5, 9)))
    assert {pair.target: pair.source.partition("_")[0] for pair in done.pairs} == {
        "lookup": "embedding",
        "memory": "lstm",
        "classify": "dense",
    }
    assert "memory" in str(done)
    assert "exact" in str(done)
    assert not module.memory.bias_hh_l0.requires_grad
    assert not module.memory.bias_hh_l0.any()


def test_twins_of_equal_shape_in_opposite_order(keras, torch):
    from torch import nn

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.LSTM(3, 4, batch_first=True)
            self.a = nn.LSTM(3, 4, batch_first=True)
            self.out = nn.Linear(8, 2)

        def forward(self, left, right):
            return self.out(torch.cat([self.b(left)[0][:, -1], self.a(right)[0][:, -1]], -1))

    left, right = keras.Input((None, 3)), keras.Input((None, 3))
    second = keras.layers.LSTM(4)(right)
    first = keras.layers.LSTM(4)(left)
    model = shaken(keras.Model([left, right], keras.layers.Dense(2)(keras.layers.Concatenate()([first, second]))))
    module = Two()
    done = gw.transfer(model, module)
    check(model, module, numbers(5, 6, 3), numbers(5, 6, 3))
    assert {pair.how for pair in done.pairs if pair.target in "ab"} == {"outputs"}


def test_two_heads_on_one_input(keras, torch):
    from torch import nn

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 5, batch_first=True)
            self.logvar = nn.Linear(5, 5)
            self.mu = nn.Linear(5, 5)

        def forward(self, x):
            last = self.rnn(x)[1][0]
            return self.mu(last), self.logvar(last)

    source = keras.Input((None, 3))
    hidden = keras.layers.GRU(5)(source)
    one, two = keras.layers.Dense(5)(hidden), keras.layers.Dense(5)(hidden)
    model = shaken(keras.Model(source, [one, two]))
    module = Heads()
    gw.transfer(model, module)
    check(model, module, numbers(4, 6, 3))


def test_a_deep_stack_of_equal_layers_listed_backwards(keras, torch):
    from torch import nn

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            for number in reversed(range(6)):
                setattr(self, f"step{number}", nn.Linear(4, 4))

        def forward(self, x):
            for number in (3, 1, 4, 0, 5, 2):
                x = torch.tanh(getattr(self, f"step{number}")(x))
            return x

    model = shaken(keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(4, activation="tanh") for _ in range(6))]))
    module = Deep()
    gw.transfer(model, module)
    check(model, module, numbers(5, 4))


def test_batch_normalisation_between_with_statistics(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc2 = nn.Linear(6, 2)
            self.bn = nn.BatchNorm1d(6, eps=1e-3)
            self.fc1 = nn.Linear(5, 6)

        def forward(self, x):
            return self.fc2(torch.relu(self.bn(self.fc1(x))))

    model = shaken(
        keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Dense(6),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.Dense(2),
            ]
        )
    )
    module = Net()
    gw.transfer(model, module)
    check(model, module, numbers(5, 5))
    assert module.bn.num_batches_tracked == 0


def test_a_stack_of_two_directions(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.encoder(x)[0])

    model = shaken(
        keras.Sequential(
            [
                keras.Input((None, 3)),
                keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True)),
                keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True)),
                keras.layers.TimeDistributed(keras.layers.Dense(2)),
            ]
        )
    )
    module = Net()
    done = gw.transfer(model, module)
    check(model, module, numbers(5, 6, 3))
    assert any(pair.target == "encoder[1].backward" for pair in done.pairs)


def test_a_module_that_reads_time_first(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model = shaken(
        keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4, return_sequences=True), keras.layers.Dense(2)])
    )
    module = Net()
    done = gw.transfer(model, module)
    check(model, module, numbers(5, 6, 3), to_module=lambda x: x.swapaxes(0, 1), back=lambda y: y.swapaxes(0, 1))
    assert any("swapped" in remark for remark in done.remarks)


def test_packed_sequences_with_lengths(keras, torch):
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(12, 3, padding_idx=0)
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, tokens, lengths):
            packed = pack_padded_sequence(self.emb(tokens), lengths, batch_first=True, enforce_sorted=False)
            _, (h, _) = self.rnn(packed)
            return self.head(h[-1])

    model = shaken(
        keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(12, 3, mask_zero=True),
                keras.layers.LSTM(4),
                keras.layers.Dense(2),
            ]
        )
    )
    module = Net()
    gw.transfer(model, module)
    tokens = np.array([[3, 4, 0, 0], [5, 1, 2, 7]])
    with torch.no_grad():
        there = module.eval()(torch.tensor(tokens), torch.tensor([2, 4])).numpy()
    np.testing.assert_allclose(there, model(tokens), atol=1e-5)


def test_a_loop_over_cells(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.LSTMCell(5, 5)
            self.low = nn.LSTMCell(5, 5)

        def forward(self, x):
            h = c = hh = cc = torch.zeros(x.shape[0], 5)
            for step in x.unbind(1):
                h, c = self.low(step, (h, c))
                hh, cc = self.up(h, (hh, cc))
            return hh

    model = shaken(
        keras.Sequential([keras.Input((None, 5)), keras.layers.LSTM(5, return_sequences=True), keras.layers.LSTM(5)])
    )
    module = Net()
    gw.transfer(model, module)
    check(model, module, numbers(4, 6, 5))


def test_two_cells_as_the_directions_of_one_layer(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.right_to_left = nn.GRUCell(3, 4)
            self.left_to_right = nn.GRUCell(3, 4)

        def forward(self, x):
            ends = []
            for cell, steps in ((self.left_to_right, x.unbind(1)), (self.right_to_left, x.flip(1).unbind(1))):
                h = torch.zeros(x.shape[0], 4)
                for step in steps:
                    h = cell(step, h)
                ends.append(h)
            return torch.cat(ends, -1)

    model = shaken(keras.Sequential([keras.Input((None, 3)), keras.layers.Bidirectional(keras.layers.GRU(4))]))
    module = Net()
    gw.transfer(model, module)
    check(model, module, numbers(4, 6, 3))


def test_nested_modules_and_a_keras_subclass(keras, torch):
    from torch import nn

    class Block(keras.layers.Layer):
        def __init__(self, width):
            super().__init__()
            self.inner = keras.layers.Dense(width, activation="relu")
            self.norm = keras.layers.LayerNormalization(epsilon=1e-5)

        def call(self, x):
            return self.norm(x + self.inner(x))

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [Block(4) for _ in range(3)]
            self.rnn = keras.layers.LSTM(5)
            self.head = keras.layers.Dense(1)

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(self.rnn(x))

    class TorchBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln = nn.LayerNorm(4)
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.ln(x + torch.relu(self.fc(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.final = nn.Linear(5, 1)
            self.body = nn.ModuleDict({"recurrent": nn.LSTM(4, 5, batch_first=True)})
            self.stages = nn.ModuleList(TorchBlock() for _ in range(3))

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.final(self.body["recurrent"](x)[0][:, -1])

    model = Model()
    model(numbers(2, 6, 4))
    shaken(model)
    module = Net()
    gw.transfer(model, module)
    check(model, module, numbers(4, 6, 4))


def test_a_parameter_list(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5, 5))])
            self.biases = nn.ParameterList([nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))])

        def forward(self, x):
            for weight, bias in zip(self.weights, self.biases, strict=True):
                x = torch.tanh(x @ weight + bias)
            return x

    model = shaken(
        keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(5, activation="tanh")]
        )
    )
    module = Net()
    gw.transfer(model, module)
    check(model, module, numbers(4, 3))


def test_tied_embeddings(keras, torch):
    from torch import nn

    class Tied(keras.layers.Layer):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def build(self, shape):
            self.bias = self.add_weight(shape=(11,), name="bias")

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.table.embeddings)) + self.bias

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 11)
            self.emb = nn.Embedding(11, 6)
            self.head.weight = self.emb.weight
            self.rnn = nn.GRU(6, 6, batch_first=True)

        def forward(self, tokens):
            return self.head(self.rnn(self.emb(tokens))[0])

    source = keras.Input((None,), dtype="int32")
    table = keras.layers.Embedding(11, 6)
    model = shaken(keras.Model(source, Tied(table)(keras.layers.GRU(6, return_sequences=True)(table(source)))))
    module = Net()
    gw.transfer(model, module)
    assert module.head.weight is module.emb.weight
    check(model, module, RANDOM.integers(0, 11, (3, 5)))


def test_a_layer_used_twice_fills_two(keras, torch):
    from torch import nn

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.LSTM(3, 4, batch_first=True)
            self.right = nn.LSTM(3, 4, batch_first=True)

        def forward(self, a, b):
            return self.left(a)[0][:, -1] - self.right(b)[0][:, -1]

    shared = keras.layers.LSTM(4)
    a, b = keras.Input((None, 3)), keras.Input((None, 3))
    model = shaken(keras.Model([a, b], keras.layers.Subtract()([shared(a), shared(b)])))
    module = Siamese()
    gw.transfer(model, module)
    check(model, module, numbers(4, 6, 3), numbers(4, 6, 3))


def test_images_with_channels_first(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3), nn.ReLU())
            self.act = nn.PReLU(4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.act(self.features(x)).mean((2, 3)))

    model = shaken(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3, padding="same"),
                keras.layers.BatchNormalization(),
                keras.layers.ReLU(),
                keras.layers.PReLU(shared_axes=[1, 2]),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(2),
            ]
        )
    )
    module = Net()
    gw.transfer(model, module)
    check(model, module, numbers(2, 8, 8, 3), to_module=lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def test_from_torch_into_keras_and_back(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    model = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
    first, second = Net(), Net()
    done = gw.transfer(first, model)
    assert done.parity.passed
    assert "equivalent" in {pair.verdict for pair in done.pairs}
    check(model, first, numbers(4, 6, 3))
    gw.transfer(model, second)
    check(model, second, numbers(4, 6, 3))


def test_a_state_dict_by_names(keras, torch, tmp_path):
    from safetensors.torch import save_file
    from torch import nn

    def net():
        return nn.ModuleDict({"left": nn.LSTM(3, 4), "right": nn.LSTM(3, 4), "head": nn.Linear(8, 2)})

    first, second = net(), net()
    save_file(first.state_dict(), tmp_path / "state.safetensors")
    done = gw.transfer(tmp_path / "state.safetensors", second)
    assert done.parity is None
    assert any("Not proved" in remark for remark in done.remarks)
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name]), name
    third = net()
    gw.transfer(first.state_dict(), third)
    assert torch.equal(third["left"].weight_hh_l0, first["left"].weight_hh_l0)


def test_keras_into_keras(keras):
    def made(names):
        source = keras.Input((None, 3))
        x = keras.layers.LSTM(4, return_sequences=True, name=names[0])(source)
        x = keras.layers.GRU(4, name=names[1])(x)
        return keras.Model(source, keras.layers.Dense(4, name=names[2])(x))

    first, second = shaken(made("abc")), made(["encoder", "decoder", "head"])
    gw.transfer(first, second)
    given = numbers(4, 6, 3)
    np.testing.assert_allclose(first(given), second(given), atol=1e-6)


def test_attention_in_blocks(keras, torch):
    from torch import nn

    source = keras.Input((5, 8))
    x = source
    for _ in range(2):
        x = keras.layers.LayerNormalization(epsilon=1e-5)(x + keras.layers.MultiHeadAttention(2, 4)(x, x))
        wide = keras.layers.Dense(8)(keras.layers.Dense(16, activation="relu")(x))
        x = keras.layers.LayerNormalization(epsilon=1e-5)(x + wide)
    model = shaken(keras.Model(source, x))
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    module = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    gw.transfer(model, module)
    check(model, module, numbers(3, 5, 8))
    back = keras.models.clone_model(model)
    gw.transfer(module, back, inputs=numbers(2, 5, 8))
    check(back, module, numbers(3, 5, 8))


def test_files_on_both_sides(keras, torch, tmp_path):
    model = shaken(keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)]))
    other = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    other.save(tmp_path / "other.keras")
    gw.save(gw.port(model, to="torch"), tmp_path / "model.safetensors")
    given = numbers(4, 6, 3)
    for file in ("model.keras", "model.safetensors"):
        done = gw.transfer(tmp_path / file, str(tmp_path / "other.keras"))
        assert done.parity.passed
        np.testing.assert_allclose(model(given), done.target(given), atol=1e-6)
    with pytest.raises(gw.SpecError, match="no model"):
        gw.transfer(model, {"w": np.zeros(3)})


def test_an_image_that_no_layer_pools_before_it_is_laid_flat(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm, self.conv = nn.Linear(36, 3), nn.BatchNorm2d(4), nn.Conv2d(2, 4, 3, padding=1)

        def forward(self, x):
            return self.fc(torch.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).flatten(1))

    conv, norm = keras.layers.Conv2D(4, 3, padding="same"), keras.layers.BatchNormalization(epsilon=1e-5)
    after = keras.layers.ReLU(), keras.layers.MaxPooling2D(), keras.layers.Flatten(), keras.layers.Dense(3)
    model, module = shaken(keras.Sequential([keras.Input((6, 6, 2)), conv, norm, *after])), Net()
    with torch.no_grad():
        for each in (module.norm.weight, module.norm.running_mean, module.norm.running_var):
            each.add_(torch.rand(4))
    gw.transfer(module, model)
    check(model, module, numbers(2, 6, 6, 2), to_module=lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("given", ["list", "dict"])
def test_outputs_by_name_and_in_order(keras, torch, given):
    """A dict is compared by its keys with another dict, and in its order with a list: twins stay apart."""
    from torch import nn

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            if given == "list":
                return {"mu": self.two(x), "lv": self.one(x)}
            return {"lv": self.one(x), "mu": self.two(x)}

    source = keras.Input((4,))
    made = {name: keras.layers.Dense(4)(source) for name in ("mu", "lv")}
    model = shaken(keras.Model(source, list(made.values()) if given == "list" else made))
    module = Heads()
    gw.transfer(model, module)
    x = numbers(3, 4)
    here, there = model(x), module(torch.as_tensor(x))
    for place, name in enumerate(("mu", "lv")):
        mine = here[place if given == "list" else name]
        np.testing.assert_allclose(there[name].detach().numpy(), mine, atol=1e-5)


def test_lengths_among_the_given_inputs(keras, torch):
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)

        def forward(self, x, lengths):
            return self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][-1]

    model = shaken(keras.Sequential([keras.Input((None, 3)), keras.layers.Masking(), keras.layers.GRU(4)]))
    x, lengths = numbers(3, 5, 3), np.array([2, 5, 3])
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    module = Net()
    done = gw.transfer(model, module, inputs=(x, lengths))
    assert done.parity.passed
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.as_tensor(x), torch.as_tensor(lengths)), model(x), atol=1e-6)


def test_half_precision_is_compared_as_such(keras, torch):
    from torch import nn

    mixed = keras.layers.LSTM(4, dtype="mixed_float16", name="lstm")
    model = shaken(keras.Sequential([keras.Input((None, 3)), mixed, keras.layers.Dense(2, name="dense")]))
    done = gw.transfer(model, recurrent_net(torch, nn.LSTM(3, 4, batch_first=True), lambda y: y[:, -1]))
    assert done.parity.passed
    assert "half precision" in done.parity.why
    module = recurrent_net(torch, nn.LSTM(3, 4, batch_first=True), lambda y: y[:, -1]).bfloat16()
    done = gw.transfer(small(keras), module)
    assert done.parity.passed
    assert module.rnn.weight_ih_l0.dtype == torch.bfloat16
    assert any("cast from float32 to bfloat16" in remark for remark in done.remarks)


def lstm_step(gates, c, order):
    import torch

    part = dict(zip(order, gates.chunk(4, -1), strict=True))
    c = torch.sigmoid(part["f"]) * c + torch.sigmoid(part["i"]) * torch.tanh(part["g"])
    return torch.sigmoid(part["o"]) * torch.tanh(c), c


@pytest.mark.parametrize("how", ["list", "two", "one", "gates"])
def test_an_lstm_written_by_hand(keras, torch, how):
    """Its gates lie in an order that no shape tells; the outputs do."""
    from torch import nn

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            if how == "list":
                shapes = (3, 16), (4, 16), (16,)
                self.parts = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)
            elif how == "two":
                self.h2h, self.x2h = nn.Linear(4, 16, bias=False), nn.Linear(3, 16)
            elif how == "one":
                self.both = nn.Linear(7, 16)
            else:
                self.forget, self.inp, self.cell, self.outp = (nn.Linear(7, 4) for _ in range(4))

        def gates(self, x, h):
            if how == "list":
                return x @ self.parts[0] + h @ self.parts[1] + self.parts[2]
            if how == "two":
                return self.x2h(x) + self.h2h(h)
            if how == "one":
                return self.both(torch.cat([h, x], -1))
            both = torch.cat([x, h], -1)
            return torch.cat([gate(both) for gate in (self.outp, self.forget, self.cell, self.inp)], -1)

        def forward(self, x):
            h = c = torch.zeros(len(x), 4)
            for step in x.unbind(1):
                h, c = lstm_step(self.gates(step, h), c, "ofgi")
            return h

    source = keras.Input((None, 3))
    model = shaken(keras.Model(source, keras.layers.LSTM(4)(source)))
    module = Own()
    gw.transfer(model, module)
    check(model, module, numbers(4, 6, 3))
    back = keras.Model(source, keras.layers.LSTM(4)(source))
    gw.transfer(module, back, inputs=numbers(2, 5, 3))
    check(back, module, numbers(4, 6, 3))


def test_an_image_laid_flat_in_another_order(keras, torch):
    from torch import nn

    model = shaken(
        keras.Sequential(
            [keras.Input((5, 6, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
        )
    )
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(48, 2))
    gw.transfer(model, module)
    check(model, module, numbers(2, 5, 6, 3), to_module=lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def test_six_heads_that_no_order_tells_apart(keras, torch):
    from torch import nn

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(6))

        def forward(self, x):
            made = [head(x) for head in self.heads]
            return torch.cat([made[place] for place in (4, 2, 0, 5, 1, 3)], -1)

    source = keras.Input((4,))
    model = shaken(keras.Model(source, keras.layers.Concatenate()([keras.layers.Dense(3)(source) for _ in range(6)])))
    module = Heads()
    gw.transfer(model, module)
    check(model, module, numbers(5, 4))


def test_free_parameters_whose_axes_no_shape_tells(keras, torch):
    from torch import nn

    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.w2, self.b2 = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
            self.w1, self.b1 = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))

        def forward(self, x):
            return nn.functional.linear(torch.tanh(nn.functional.linear(x, self.w1, self.b1)), self.w2, self.b2)

    first = keras.layers.Dense(4, activation="tanh")
    model = shaken(keras.Sequential([keras.Input((4,)), first, keras.layers.Dense(4)]))
    module = Free()
    gw.transfer(model, module)
    check(model, module, numbers(5, 4))


def test_second_biases_types_and_names_that_are_given(keras, torch):
    from torch import nn

    model = small(keras)
    module = nn.LSTM(3, 4, batch_first=True)
    source = keras.Input((None, 3))
    layer = shaken(keras.Model(source, keras.layers.LSTM(4, return_sequences=True, name="lstm")(source)))
    done = gw.transfer(layer, module, second_bias="trainable", dtype="float64", pairs={"lstm": "lstm"})
    assert module.bias_hh_l0.requires_grad
    assert not module.bias_hh_l0.any()
    assert module.weight_ih_l0.dtype == torch.float64
    assert any("cast from float32 to float64" in remark for remark in done.remarks)
    assert [pair.how for pair in done.pairs] == ["given"]
    np.testing.assert_allclose(module.weight_ih_l0.detach().numpy().T, layer.get_layer("lstm").get_weights()[0])
    with pytest.raises(gw.UnsupportedModelError, match="float64"):
        gw.transfer(layer, model, dtype="float64", allow_missing=True)


def test_a_stack_is_carried_layer_by_layer(torch):
    import tracemalloc

    from torch import nn

    source, module = (nn.LSTM(128, 128, 12, batch_first=True) for _ in range(2))
    size = sum(each.nbytes for each in source.parameters())
    gw.transfer(nn.LSTM(2, 2), nn.LSTM(2, 2))  # What is imported for the first time does not count.
    tracemalloc.start()
    try:
        gw.transfer(source, module, inputs=numbers(1, 2, 128))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size / 2, (most, size)  # NumPy's: the stack was never whole in it.
    assert all(torch.equal(here, there) for here, there in zip(source.parameters(), module.parameters(), strict=True))


def test_a_parameter_keeps_its_identity(keras, torch):
    """An optimiser that holds the target's parameters goes on with them, and a mode stays."""
    from torch import nn

    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)).train()
    before = list(module.parameters())
    state = torch.random.get_rng_state()
    gw.transfer(dense_net(keras), module)
    assert all(one is other for one, other in zip(module.parameters(), before, strict=True))
    assert module.training
    assert module[2].training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_twins_without_an_effect_are_refused(keras, torch):
    """Neither branch reaches the outputs: which is which nobody can tell."""
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.p, self.q, self.out = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.out(x + 0 * self.p(x) + 0 * self.q(x))

    source = keras.Input((3,))
    one, two = keras.layers.Dense(3, name="one")(source), keras.layers.Dense(3, name="two")(source)
    model = shaken(keras.Model(source, keras.layers.Dense(2, name="out")(source + 0 * one + 0 * two)))
    refused(model, Net(), "'one'", "'two'", "'p'", "'q'", "pairs={")
    module = Net()
    gw.transfer(model, module, pairs={"one": "q"})
    np.testing.assert_allclose(module.q.weight.detach().numpy().T, model.get_layer("one").get_weights()[0])


def test_tied_weights_of_the_target_alone_are_refused(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.emb.weight

        def forward(self, tokens):
            return self.head(self.emb(tokens))

    model = shaken(
        keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(7, 4, name="table"),
                keras.layers.Dense(7, use_bias=False, name="dense"),
            ]
        )
    )
    refused(model, Net(), "'table'", "'dense'", "share their weights")
    model.get_layer("dense").kernel.assign(model.get_layer("table").get_weights()[0].T)
    module = Net()
    gw.transfer(model, module)
    check(model, module, RANDOM.integers(0, 7, (3, 5)))


def test_a_keras_target_that_is_refused_is_as_it_was(keras, torch):
    from torch import nn

    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    model = dense_net(keras, first="tanh")
    before = model.get_weights()
    with pytest.raises(gw.TransferError, match="relu"):
        gw.transfer(module, model)
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))


# ── pairs that do not fit ───────────────────────────────────────────────────────────────────────────────────────


def kept(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(module, before):
    import torch

    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def refused(model, module, *words, **options):
    """The transfer is refused, with these words, and the target is as it was."""
    before = kept(module)
    with pytest.raises(gw.TransferError) as error:
        gw.transfer(model, module, **options)
    assert same(module, before)
    for word in words:
        assert word in str(error.value), str(error.value)
    return error.value


def small(keras, *middle, units=4):
    last = keras.layers.LSTM(units, name="lstm"), keras.layers.Dense(2, name="dense")
    return shaken(keras.Sequential([keras.Input((None, 3)), *middle, *last]))


def test_what_does_not_fit_is_named(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self, rnn=None, width=4, extra=False, out=2):
            super().__init__()
            self.rnn = rnn or nn.LSTM(3, width, batch_first=True)
            self.head = nn.Linear(width, out)
            if extra:
                self.more = nn.Linear(7, 7)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    model = small(keras)
    refused(model, Net(width=5), "lstm", "rnn", "units 4 here, 5 there")
    refused(model, Net(out=3), "dense", "head", "units 2 here, 3 there")
    refused(model, Net(extra=True), "Only in the target", "more")
    refused(small(keras, keras.layers.Dense(3)), Net(), "Only in the source", "dense")
    refused(model, Net(nn.GRU(3, 4, batch_first=True)), "lstm", "rnn", "GRU")
    refused(model, Net(nn.LSTM(3, 4, num_layers=2, batch_first=True)), "rnn[1]")
    refused(model, Net(nn.LSTM(3, 4, batch_first=True, bias=False)), "lstm", "bias", "rnn")
    before = shaken(
        keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4, reset_after=False), keras.layers.Dense(2)])
    )
    refused(before, Net(nn.GRU(3, 4, batch_first=True)), "gru", "rnn", "resets before")


def test_what_has_no_partner_may_be_left_out(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, batch_first=True)
            self.spare = nn.Linear(7, 7)

        def forward(self, x):
            return self.rnn(x)[0][:, -1]

    source = keras.Input((None, 3))
    model = shaken(keras.Model(source, keras.layers.LSTM(4)(source)))
    module = Net()
    spare = module.spare.weight.clone()
    done = gw.transfer(model, module, allow_missing=True)
    assert torch.equal(module.spare.weight, spare)
    assert any("spare" in name for name in done.target_left)
    check(model, module, numbers(4, 6, 3))


def test_a_head_of_its_own_may_be_left_out(torch):
    from torch import nn

    source = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    for more in (nn.Linear(2, 5), nn.Linear(2, 2)):
        module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), more)
        refused(source, module, "Only in the target: 2", inputs=numbers(3, 4))
        done = gw.transfer(source, module, inputs=numbers(3, 4), allow_missing=True)
        assert done.parity is None
        assert any("'2' has no partner" in each for each in done.remarks)
        assert torch.equal(module[0].weight, source[0].weight)
        assert torch.equal(module[1].bias, source[1].bias)
    twins = [nn.Sequential(*(nn.Linear(4, 4) for _ in range(count))) for count in (2, 3)]
    refused(*twins, "'0' and '1'", "pairs={", inputs=numbers(3, 4), allow_missing=True)


def test_what_the_inputs_do_not_show_is_said(torch):
    from torch import nn

    source, module = (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, eps=eps)) for eps in (1e-3, 1e-5))
    source[1].running_var.fill_(1e4)
    done = gw.transfer(source, module, inputs=numbers(3, 4))
    assert any("eps of '1' is 0.001" in each for each in done.remarks)
    source, module = (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    assert not gw.transfer(source, module, inputs=numbers(3, 4)).remarks
    source[0].bias.data.fill_(-100.0)
    done = gw.transfer(source, module, inputs=numbers(3, 4))
    assert any("Not proved of '0'" in each for each in done.remarks)


def test_twins_that_nothing_tells_apart_are_refused(torch):
    from torch import nn

    arrays = {f"{name}.{key}": value for name in ("one", "two") for key, value in nn.LSTM(3, 4).state_dict().items()}
    arrays = {key: value + len(key) for key, value in arrays.items()}
    module = nn.ModuleDict({"first": nn.LSTM(3, 4), "other": nn.LSTM(3, 4)})
    error = refused(arrays, module, "'one'", "'two'", "'first'", "'other'", "pairs={")
    assert "arrays and no model" in str(error)
    done = gw.transfer(arrays, module, pairs={"one": "other"})
    assert torch.equal(module["other"].weight_hh_l0, arrays["one.weight_hh_l0"])
    assert torch.equal(module["first"].weight_hh_l0, arrays["two.weight_hh_l0"])
    assert {pair.how for pair in done.pairs} == {"given", "only fit"}


def test_what_cannot_be_a_side_is_said(keras, torch):
    from torch import nn

    model, module = small(keras), nn.Linear(2, 2)
    with torch.inference_mode():
        unwritable = nn.Linear(2, 2)
    for source, target, words in (
        (3, module, "belongs to no framework"),
        (module, None, "belongs to no framework"),
        ("nowhere.keras", module, "No such file"),
        (nn.ReLU(), module, "holds no weights"),
        (module, nn.ReLU(), "holds no weights"),
        (nn.Linear(2, 2, device="meta"), module, "meta"),
        (module, nn.Linear(2, 2, device="meta"), "meta"),
        (keras.Sequential([keras.layers.Dense(2)]), module, "no weights yet"),
        (module, nn.Linear, "Linear is a class"),
        ({"state_dict": module.state_dict()}, module, "holds a dict"),
        (module, unwritable, "inference_mode"),
    ):
        with pytest.raises(gw.GatewiseError, match=words):
            gw.transfer(source, target)
    rnn = nn.LSTM(3, 4, batch_first=True)
    with pytest.raises(gw.TransferError, match="cannot be run on the given inputs"):
        gw.transfer(model, nn.Sequential(rnn, nn.Linear(4, 2)), inputs=numbers(2, 5, 4))


def test_a_name_that_is_no_layer_is_named(keras, torch):
    from torch import nn

    module = nn.ModuleDict({"rnn": nn.LSTM(3, 4), "head": nn.Linear(4, 2)})
    refused(small(keras), module, "no layer of the target", "Did you mean 'rnn'", pairs={"lstm": "rnm"})
    with pytest.raises(gw.SpecError, match="second_bias"):
        gw.transfer(small(keras), module, second_bias="free")
    with pytest.raises(gw.SpecError, match="dtype"):
        gw.transfer(small(keras), module, dtype="int7")
    with pytest.raises(gw.SpecError, match="allow_missing"):
        gw.transfer(small(keras), module, allow_missing="no")
    taken = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    error = refused(taken, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "named twice", pairs={"0": "1", "1": "1"})
    assert "Did you mean" not in str(error)
    with pytest.raises(gw.SpecError, match="pairs"):
        gw.transfer(small(keras), module, pairs=["lstm"])


# ── weights that fit, and models that compute something else ────────────────────────────────────────────────────


def dense_net(keras, **options):
    middle = [keras.layers.Dense(5, name="one", activation=options.get("first", "relu"))]
    middle += [keras.layers.BatchNormalization(name="norm")] if options.get("norm") else []
    last = keras.layers.Dense(3, name="two", activation=options.get("last"))
    return shaken(keras.Sequential([keras.Input((4,)), *middle, last]))


def torch_net(torch, *, norm=None, between="relu", end=None):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(4, 5)
            if norm:
                self.bn = norm
            self.fc2 = nn.Linear(5, 3)

        def forward(self, x):
            x = getattr(torch, between)(self.fc1(x))
            x = self.fc2(self.bn(x) if norm else x)
            return getattr(torch, end)(x, -1) if end else x

    return Net()


def test_another_epsilon_is_named(keras, torch):
    module = torch_net(torch, norm=torch.nn.BatchNorm1d(5))
    model = dense_net(keras, norm=True)
    model.get_layer("norm").moving_variance.assign(np.full(5, 0.01))
    error = refused(model, module, "'bn'", "eps=0.001", "1e-05", "Outputs match")
    [found] = error.result.parity.diagnosis
    assert (found.layer, found.mistake) == ("bn", "epsilon")
    assert found.after < 1e-5 < found.before


def test_another_activation_is_named(keras, torch):
    error = refused(dense_net(keras), torch_net(torch, between="tanh"), "'fc1'", "relu", "tanh")
    assert error.result.parity.diagnosis[0].mistake == "activation"
    error = refused(dense_net(keras, last="softmax"), torch_net(torch), "'fc2'", "softmax")
    assert error.result.parity.diagnosis[0].layer == "fc2"
    done = gw.transfer(dense_net(keras, last="softmax"), torch_net(torch, end="softmax"))
    assert done.parity.passed


def recurrent_net(torch, rnn, read):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = rnn
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(read(self.rnn(x)[0]))

    return Net()


def test_what_is_read_of_a_layer_is_named(keras, torch):
    from torch import nn

    model = small(keras)
    for read in (lambda y: y[:, 0], lambda y: y.mean(1)):
        module = recurrent_net(torch, nn.LSTM(3, 4, batch_first=True), read)
        error = refused(model, module, "'rnn'", "'lstm'")
        assert error.result.parity.diagnosis[0].mistake == "wrong-step"
    module = recurrent_net(torch, nn.LSTM(3, 4), lambda y: y[:, -1])
    refused(model, module, "batch_first of 'rnn' is True", "Outputs match")
    unusual = shaken(
        keras.Sequential(
            [
                keras.Input((None, 3)),
                keras.layers.LSTM(4, activation="relu", name="lstm"),
                keras.layers.Dense(2, name="dense"),
            ]
        )
    )
    refused(unusual, recurrent_net(torch, nn.LSTM(3, 4, batch_first=True), lambda y: y[:, -1]), "activation", "'rnn'")


def test_what_stands_between_two_directions_is_named(keras, torch):
    from torch import nn

    def net(read):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.GRU(3, 4, bidirectional=True, batch_first=True)
                self.head = nn.Linear(4 if read == "sum" else 8, 2)

            def forward(self, x):
                seen = self.rnn(x)[0]
                return self.head(sum(seen.chunk(2, -1)) if read == "sum" else seen[:, -1])

        return Net()

    def model(**options):
        both = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences="merge_mode" in options), **options)
        return shaken(keras.Sequential([keras.Input((None, 3)), both, keras.layers.Dense(2)]))

    refused(model(merge_mode="ave"), net("sum"), "'rnn'", "the mean of both halves", "the sum of both halves")
    refused(model(), net("last"), "'rnn'", "the ends of both directions", "the last step")


def test_outputs_of_another_shape_are_refused_with_the_place(keras, torch):
    net = recurrent_net(torch, torch.nn.LSTM(3, 4, batch_first=True), lambda x: x)
    refused(small(keras), net, "(3, 2) here", "the source takes the last step of 'lstm'")


def test_outputs_of_another_shape_are_refused_with_the_option(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 3)

        def forward(self, x):
            return self.conv(x.transpose(1, 2)).transpose(1, 2)

    model = shaken(keras.Sequential([keras.Input((9, 3)), keras.layers.Conv1D(4, 3, strides=2)]))
    refused(model, Net(), "(3, 4, 4)", "(3, 7, 4)", "stride", "'conv'")


def test_a_padding_that_the_target_lacks_is_named(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 3, padding=1)

        def forward(self, x):
            return torch.relu(self.conv(x.transpose(1, 2))).mean(-1)

    conv = keras.layers.Conv1D(4, 3, padding="causal", activation="relu")
    model = shaken(keras.Sequential([keras.Input((9, 3)), conv, keras.layers.GlobalAveragePooling1D()]))
    refused(model, Net(), "'conv'", "'causal'", "pad the front")


def test_dropout_that_is_left_on_is_named(keras, torch):
    from torch import nn

    module = recurrent_net(
        torch, nn.LSTM(3, 4, batch_first=True), lambda y: nn.functional.dropout(y[:, -1], 0.5, training=True)
    )
    refused(small(keras), module, "dropout", "each run")


def test_a_mask_that_the_target_lacks_is_named(keras, torch):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(12, 3)
            self.rnn = nn.LSTM(3, 4, batch_first=True)

        def forward(self, tokens):
            return self.rnn(self.emb(tokens))[0][:, -1]

    model = shaken(
        keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(12, 3, mask_zero=True),
                keras.layers.LSTM(4),
            ]
        )
    )
    refused(model, Net(), "mask", "padded", "pack_padded_sequence")
    done = gw.transfer(model, Net(), inputs=RANDOM.integers(1, 12, (3, 5)))
    assert done.parity.passed


# ── copies made by hand ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def copied(keras, torch):
    """A Keras model, a module with its weights, and what both are called with."""
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(11, 3)
            self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)
            self.bn = nn.BatchNorm1d(8, eps=1e-3)
            self.head = nn.Linear(8, 8)

        def forward(self, tokens):
            seen = self.rnn(self.emb(tokens))[0]
            return self.head(self.bn(seen.transpose(1, 2)).transpose(1, 2)[:, -1])

    def both(name):
        return keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True), name=name)

    model = shaken(
        keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(11, 3, name="table"),
                both("low"),
                both("high"),
                keras.layers.BatchNormalization(name="norm"),
                keras.layers.Lambda(lambda x: x[:, -1], output_shape=(8,)),
                keras.layers.Dense(8, name="dense"),
            ]
        )
    )
    model.get_layer("norm").moving_variance.assign(np.full(8, 0.01))
    module, tokens = Net(), RANDOM.integers(0, 11, (3, 6))
    gw.transfer(model, module, inputs=tokens)
    return model, module, tokens


def exchanged(weight, *order):
    parts = [part.clone() for part in weight.chunk(len(order))]
    for part, place in zip(weight.chunk(len(order)), order, strict=True):
        part.copy_(parts[place])


def gates_of_one_kernel(net):
    exchanged(net.rnn.weight_ih_l0.data, 0, 2, 1, 3)


def not_transposed(net):
    net.head.weight.data = net.head.weight.data.t().clone()


def from_the_wrong_layer(net):
    for name in ("weight_hh", "bias_ih", "bias_hh"):
        getattr(net.rnn, f"{name}_l1_reverse").data.copy_(getattr(net.rnn, f"{name}_l0_reverse").data)


def bias_twice(net):
    net.rnn.bias_hh_l0.data.copy_(net.rnn.bias_ih_l0.data)


def small_epsilon(net):
    net.bn.eps = 1e-5


def statistics_left_out(net):
    net.bn.reset_running_stats()


def deviation_for_variance(net):
    net.bn.running_var.sqrt_()


def rows_shifted(net):
    net.rnn.weight_hh_l0.data = net.rnn.weight_hh_l0.data.roll(1, 0)


def statistics_exchanged(net):
    net.bn.running_mean.copy_(net.bn.running_var)


@pytest.mark.parametrize(
    ("spoil", "layer", "mistake"),
    [
        (gates_of_one_kernel, "rnn[0].forward", "gates-exchanged"),
        (not_transposed, "head", "kernel-transposed"),
        (from_the_wrong_layer, "rnn[1].backward", "other-layer"),
        (bias_twice, "rnn[0].forward", "bias-doubled"),
        (small_epsilon, "bn", "epsilon"),
        (statistics_exchanged, "bn", "other-layer"),
        (statistics_left_out, "bn", "not-copied"),
        (deviation_for_variance, "bn", "variance-root"),
        (rows_shifted, "rnn[0].forward", "rows-shifted"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_the_mistake_of_a_copy_is_named(copied, spoil, layer, mistake):
    import copy

    from gatewise.parity.diagnosis import TEXTS

    model, module, tokens = copied
    spoiled = copy.deepcopy(module)
    spoil(spoiled)
    before = kept(spoiled)
    parity = gw.verify(model, spoiled, inputs=tokens)
    assert parity.verdict == "failed"
    [found] = parity.diagnosis
    assert (found.layer, found.mistake) == (layer, mistake)
    assert repr(layer) in found.text
    assert found.mistake in TEXTS
    assert found.after < 1e-5 < found.before
    assert same(spoiled, before)


def test_several_mistakes_of_a_copy_are_named_together(copied):
    import copy

    model, module, tokens = copied
    spoiled = copy.deepcopy(module)
    for spoil in (bias_twice, not_transposed, small_epsilon):
        spoil(spoiled)
    found = gw.verify(model, spoiled, inputs=tokens).diagnosis
    assert [each.mistake for each in found] == ["bias-doubled", "kernel-transposed", "epsilon"]
    assert gw.verify(model, module, inputs=tokens).verdict != "failed"


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width, out=2):
        super().__init__()
        self.memory = nn.LSTM(3, width, batch_first=True)
        self.head = nn.Linear(width, out)

    def forward(self, x):
        return self.head(self.memory(x)[0][:, -1])
"""


def test_on_the_command_line(keras, torch, tmp_path):
    import json

    from click.testing import CliRunner
    from safetensors.torch import load_file

    from gatewise.cli import main

    def run(*words):
        return CliRunner().invoke(main, ["transfer", *map(str, words)])

    model, filled = tmp_path / "model.keras", tmp_path / "net.safetensors"
    small(keras).save(model)
    (tmp_path / "net.py").write_text(NET)
    net = f"{tmp_path / 'net.py'}:Net"
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "cut.py").write_text("class Net(\n")
    (tmp_path / "loud.py").write_text("print('loud')\n" + NET)
    done = run(model, f"{tmp_path / 'loud.py'}:Net(4)", "-o", tmp_path / "net.SAFETENSORS", "-f", "json")
    assert json.loads(done.stdout), done.output
    assert "loud" in done.stderr
    done = run(model, f"{net}(4, out=2)", "--output", filled)
    assert done.exit_code == 0, done.output
    assert "Parity passed" in done.stdout
    space: dict = {}
    exec(NET, space)
    module = space["Net"](4)
    module.load_state_dict(load_file(filled))
    check(keras.saving.load_model(model), module, numbers(4, 6, 3))
    before = filled.read_bytes()
    for words, code, said in (
        ((model, f"{net}(4)", "-o", filled), 2, "--force"),
        ((model, f"{net}(5)", "-o", filled, "--force"), 1, "units 4 here, 5 there"),
        ((model, f"{net}(4)", "-o", filled, "--force", "--pairs", "lstm"), 2, "names no pair"),
        ((model, f"{net}(4)", "-o", filled, "--force", "--pairs", "lstm=memori"), 1, "Did you mean 'memory'"),
        ((model, f"{net}(width)", "-o", filled, "--force"), 2, "literal"),
        ((model, f"{net}()", "-o", filled, "--force"), 2, "cannot be built"),
        ((model, f"{net}s(4)", "-o", filled, "--force"), 2, "Classes in it: Net"),
        ((model, "nowhere.py:Net", "-o", filled, "--force"), 2, "is not there"),
        ((model, f"{net}(4)", "-o", filled, "--force", "--pairs", "lstm=a", "--pairs", "lstm=b"), 2, "twice"),
        ((model, f"{tmp_path / 'script.py'}:Net", "-o", filled, "--force"), 2, "SystemExit"),
        ((model, f"{tmp_path / 'cut.py'}:Net", "-o", filled, "--force"), 2, "Correct that file"),
    ):
        done = run(*words)
        assert (done.exit_code, said in done.output) == (code, True), done.output
        assert filled.read_bytes() == before
