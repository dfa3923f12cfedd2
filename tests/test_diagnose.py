"""Mistakes behind a claimed number, checked against plain arithmetic that knows nothing of layouts."""

import json
import random

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise import registry
from gatewise.cli import main
from gatewise.core.diagnose import HEADS, MISTAKES, make_case, nearest, reached

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BIASES = {("keras", "LSTM"): 1, ("keras", "GRU"): 2, ("keras", "RNN"): 1}  # torch has two everywhere


class Sizes:
    """One random layer, and the pieces of its count by hand."""

    def __init__(self, rng, framework, cell, low=2, high=200):
        self.framework, self.cell = framework, cell
        self.x, self.h = rng.randint(low, high), rng.randint(low, high)
        self.layers, self.directions = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2])
        self.bias = rng.random() < 0.85
        self.steps, self.batch = rng.randint(2, 60), rng.randint(2, 70)
        self.outputs = rng.choice([None, None, 1, 3, 20])

    @property
    def spec(self):
        kind, both = getattr(gw, self.cell), self.directions == 2
        return kind(self.x, self.h, layers=self.layers, bidirectional=both, bias=self.bias)

    def parts(self, x=None, h=None, layers=None, directions=None, cell=None, upper=None):
        """Return kernel, recurrent kernel and one bias, added up over layers and directions."""
        x, h = x or self.x, h or self.h
        layers, d, g = layers or self.layers, directions or self.directions, GATES[cell or self.cell]
        upper = d * h if upper is None else upper
        kernel = d * g * h * x + (layers - 1) * d * g * h * upper
        return kernel, layers * d * g * h * h, layers * d * g * h

    def biases(self, cell=None):
        return BIASES.get((self.framework, cell or self.cell), 2) if self.bias else 0

    def count(self, cell=None, **sizes):
        kernel, recurrent, bias = self.parts(cell=cell, **sizes)
        return kernel + recurrent + self.biases(cell) * bias

    def head(self, width=None):
        return 0 if self.outputs is None else self.outputs * ((width or self.directions * self.h) + 1)

    def total(self):
        return self.count() + self.head()

    def claims(self):
        """Yield (mistake, number that it gives)."""
        g, x, h, n, d = GATES[self.cell], self.x, self.h, self.layers, self.directions
        kernel, recurrent, bias = self.parts()
        two, head, count = self.biases(), self.head(), self.count()
        kernels, biases = kernel + recurrent, two * bias
        yield "output-size-one", h * (d * g * x + (n - 1) * d * g * d + n * d * g + two * n * d * g) + head
        yield "recurrent-kernel-diagonal", kernel + n * d * g * h + biases + head
        yield "recurrent-kernel-forgotten", kernel + biases + head
        yield "kernel-forgotten", recurrent + biases + head
        yield "features-units-exchanged", self.count(x=h, h=x) + head
        yield "timesteps-multiplied", self.steps * count + head
        yield "timesteps-multiplied", self.steps * (count + head)
        yield "batch-multiplied", self.batch * count + head
        yield "batch-multiplied", self.batch * (count + head)
        yield "timesteps-as-features", self.count(x=self.steps) + head
        yield "input-flattened", self.count(x=self.steps * x) + head
        yield "one-unit", d * g * x + (n - 1) * d * g * d * h + n * d * g * h + two * n * d * g + head
        yield "one-tensor", g * h * x
        yield "one-tensor", g * h * h
        for size in (2, 4, 8):
            yield "bytes-for-parameters", size * (count + head)
        multiplied = (kernels + (self.outputs * d * h if self.outputs else 0)) * self.steps * self.batch
        yield "macs-for-parameters", multiplied
        yield "macs-for-parameters", 2 * multiplied
        if g > 1:
            yield "gates-forgotten", count // g + head
            yield {4: "three-gates", 3: "two-gates"}[g], count // g * (g - 1) + head
        if self.bias:
            yield "bias-forgotten", kernels + head
            yield "bias-doubled", kernels + 2 * biases + head
            yield "one-bias-number", kernels + n * d + head
            # In Keras a GRU's two biases are the two rows of one tensor.
            yield "one-tensor", g * h * (2 if (self.framework, self.cell) == ("keras", "GRU") else 1)
            if two == 2:
                yield "second-bias-forgotten", kernels + bias + head
            if g > 1:
                yield "one-bias-vector", kernels + n * d * h + head
                yield "one-bias-a-gate", kernels + n * d * g + head
        if n > 1:
            yield "one-tensor", g * h * d * h
            yield "layers-forgotten", self.count(layers=1) + head
            yield "upper-layer-reads-features", self.count(upper=x) + head
            if d == 2:
                yield "upper-input-not-doubled", self.count(upper=h) + head
        if d == 1:
            yield "direction-doubled", 2 * count + head
        else:
            yield "direction-not-doubled", count // 2 + head
            yield "bidirectional-forgotten", self.count(directions=1) + self.head(h)
            if self.outputs:
                yield "head-input-not-doubled", count + self.head(h)
        if self.cell == "LSTM":
            yield "peepholes-included", count + n * d * 3 * h + head
        if self.outputs:
            yield "head-forgotten", count
            yield "head-bias-forgotten", count + self.outputs * d * h
        else:
            for outputs in HEADS:
                yield "head-included", count + outputs * (d * h + 1)

    def known(self):
        return {"head": self.outputs, "timesteps": self.steps, "batch": self.batch}

    def case(self):
        return make_case(self.spec, registry.layout(self.framework, self.spec), **self.known())


ALL = [(framework, cell) for framework in ("keras", "torch") for cell in GATES]


@pytest.mark.parametrize(("framework", "cell"), ALL)
def test_each_mistake_is_among_the_first_three(framework, cell):
    rng = random.Random(f"{framework} {cell}")
    for _ in range(7):
        sizes = Sizes(rng, framework, cell)
        for mistake, claimed in sizes.claims():
            if claimed == sizes.total():
                continue
            found = gw.diagnose(claimed, sizes.spec, framework, **sizes.known())
            first = [slug for each in found[:3] for slug in (each.mistake, *each.same_formula)]
            assert mistake in first, (mistake, sizes.spec, sizes.known(), claimed)
            assert all(each.value == claimed for each in found)
            assert len(found) <= 5


@pytest.mark.parametrize(("framework", "cell"), ALL)
def test_exactly_these_numbers_are_reached(framework, cell):
    # Nothing is explained away: a number that the arithmetic above does not give is not given by the table either.
    rng = random.Random(f"exactly {framework} {cell}")
    for _ in range(25):
        sizes = Sizes(rng, framework, cell, low=1)
        total = sizes.total()
        assert set(reached(sizes.case())) - {total} == {claimed for _, claimed in sizes.claims()} - {total}, vars(sizes)


def test_random_numbers_get_nothing_and_the_nearest():
    rng = random.Random(5)
    silent = 0
    for _ in range(25):
        sizes = Sizes(rng, "keras", rng.choice(list(GATES)), low=20)
        known = set(reached(make_case(sizes.spec, registry.layout("keras", sizes.spec), layouts=everything())))
        claimed = rng.randint(1, 2 * sizes.total())
        if claimed in known | {sizes.count()}:
            continue
        silent += 1
        found = gw.diagnose(claimed, sizes.spec, "keras")
        assert found == []
        assert not found.right
        best = min(known - {sizes.count()}, key=lambda value: abs(value - claimed))
        assert abs(found.nearest.value - claimed) == abs(best - claimed)
        assert "No mistake on the list" in found.verdict
    assert silent > 15


def everything():
    return [layout for name in registry.packages() for layout in registry.framework(name).layouts]


@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("cell", GATES)
def test_the_right_number_is_right(framework, cell):
    rng = random.Random(7)
    for _ in range(10):
        sizes = Sizes(rng, framework, cell)
        found = gw.diagnose(sizes.total(), sizes.spec, framework, **sizes.known())
        assert found == []
        assert found.right
        assert "is right" in found.verdict


def test_d2_output_size_taken_as_one():
    found = gw.diagnose(claimed=120, spec=gw.LSTM(features=1, units=10), framework="keras")
    assert found[0].mistake == "output-size-one"
    assert found[0].same_formula == ("recurrent-kernel-diagonal",)
    assert found[0].arithmetic == "10·(4·1·1 + 4·1·1 + 4·1)"
    assert "units = 10, which enters squared" in found[0].text
    assert found.total == 480


def test_e3_independent_units():
    found = gw.diagnose(24, gw.LSTM(features=1, units=2), "keras")
    slugs = [(each.mistake, *each.same_formula) for each in found]
    assert "recurrent-kernel-diagonal" in slugs[0]
    assert any("each unit reads the state of all 2" in text for text in (found[0].text, *found[0].also))
    assert "bias-forgotten" in slugs[1]  # 4·2·1 + 4·2·2 is 24 as well


def test_c4_stale_variables():
    found = gw.diagnose(24, gw.LSTM(features=1, units=1), "keras", stale={"features": 3, "units": 2})
    assert found[0].mistake == "stale-variables"
    assert "tensor 'kernel' of this layer has 4·1·1 = 4 numbers" in found[0].text
    whole = gw.diagnose(48, gw.LSTM(features=1, units=1), "keras", stale=gw.LSTM(features=3, units=2))
    assert whole[0].mistake == "stale-variables"
    assert whole[0].arithmetic == "4·2·3 + 4·2·2 + 4·2"


def test_another_framework_and_another_cell():
    torch = gw.diagnose(11_000, gw.LSTM(3, 50), "keras")[0]
    assert torch.mistake == "another-framework"
    assert "bias-doubled" in torch.same_formula
    assert "torch" in torch.text
    assert "second bias (+200 = 4·50)" in torch.text
    keras = gw.diagnose(10_800, gw.LSTM(3, 50), "torch")[0]
    assert keras.mistake == "another-framework"
    assert "keras" in keras.text
    gru = gw.count(gw.GRU(3, 50), "keras").total
    slugs = [slug for each in gw.diagnose(gru, gw.LSTM(3, 50), "keras") for slug in (each.mistake, *each.same_formula)]
    assert "cell-exchanged" in slugs


def test_a_gru_without_its_second_bias():
    found = gw.diagnose(9_408, gw.GRU(64, 32), "keras")
    assert found == []  # 9,408 is right for 32 units
    one_bias = gw.count(gw.GRU(64, 32, reset="before"), "keras").total
    found = gw.diagnose(one_bias, gw.GRU(64, 32), "keras")
    slugs = [slug for each in found for slug in (each.mistake, *each.same_formula)]
    assert {"second-bias-forgotten", "other-reset"} <= set(slugs)


def test_projection_and_peepholes():
    spec = gw.LSTM(3, 20, projection=11)
    plain = gw.count(gw.LSTM(3, 20), "torch").total
    assert gw.diagnose(plain, spec, "torch")[0].mistake == "projection-ignored"
    assert gw.diagnose(gw.count(spec, "torch").total - 11 * 20, spec, "torch")[0].mistake == "projection-forgotten"
    seeing = gw.LSTM(3, 20, peepholes=True)
    without = gw.diagnose(gw.count(seeing, "tf1").total - 60, seeing, "tf1")
    assert "peepholes-forgotten" in [slug for each in without for slug in (each.mistake, *each.same_formula)]


def test_a_dense_layer_and_an_embedding():
    assert gw.diagnose(50, gw.Dense(50, 1), "keras")[0].mistake == "bias-forgotten"
    assert gw.diagnose(640, gw.Embedding(10, 16), "keras")[0].mistake == "bytes-for-parameters"


def test_slugs_are_listed():
    assert len(set(MISTAKES)) == len(MISTAKES)
    rng = random.Random(3)
    for framework, cell in ALL:
        case = Sizes(rng, framework, cell).case()
        assert {slug for claims in reached(case).values() for slug, _ in claims} <= set(MISTAKES)
        best = nearest(1, case)
        assert best.mistake in MISTAKES
        assert best.text[0].isupper()
        assert best.text.endswith(".")


@pytest.mark.parametrize("claimed", [0, -5, "120", 1.5, True, None])
def test_what_is_no_count(claimed):
    with pytest.raises(gw.GatewiseError) as error:
        gw.diagnose(claimed, gw.LSTM(1, 10), "keras")
    assert len(str(error.value).splitlines()) == 3


def test_a_head_that_does_not_fit():
    with pytest.raises(gw.GatewiseError, match="reads 7 numbers, the layer gives 20"):
        gw.diagnose(1, gw.LSTM(3, 10, bidirectional=True), "keras", head=gw.Dense(7, 1))
    with pytest.raises(gw.GatewiseError, match="no size 'foo'"):
        gw.diagnose(1, gw.LSTM(3, 10), "keras", stale={"foo": 1})
    with pytest.raises(gw.GatewiseError, match="cannot be diagnosed"):
        gw.diagnose(1, gw.Network.chain(gw.LSTM(3, 10), gw.LSTM(10, 5)), "keras")


def test_a_network_of_a_layer_and_its_head():
    network = gw.Network.chain(gw.LSTM(3, 50), gw.Dense(50, 1))
    assert gw.diagnose(10_851, network, "keras").right
    assert gw.diagnose(10_800, network, "keras")[0].mistake == "head-forgotten"


# ── two mistakes at once ────────────────────────────────────────────────────────────────────────────────────────


def lstm(x, h, biases=1, directions=1):
    return directions * (4 * h * x + 4 * h * h + biases * 4 * h)


PAIRS = [
    (lstm(3, 50, biases=2) + 51, gw.LSTM(3, 50), "keras", {}, ("head-included", "another-framework")),
    (lstm(3, 50) + 51, gw.LSTM(3, 50), "torch", {}, ("head-included", "another-framework")),
    (lstm(3, 50, directions=2) + 101, gw.LSTM(3, 50), "keras", {}, ("head-included", "direction-doubled")),
    (lstm(3, 50, directions=2) + 51, gw.LSTM(3, 50), "keras", {}, ("head-included", "direction-doubled")),
    (
        lstm(3, 50) + 7 * 51,
        gw.LSTM(3, 50, bidirectional=True),
        "keras",
        {},
        ("head-included", "bidirectional-forgotten"),
    ),
    (lstm(3, 50, biases=0) + 51, gw.LSTM(3, 50), "keras", {}, ("head-included", "bias-forgotten")),
    (
        lstm(8, 50, biases=2),
        gw.LSTM(3, 50),
        "keras",
        {"stale": {"features": 8}},
        ("stale-variables", "another-framework"),
    ),
    (lstm(8, 50) + 51, gw.LSTM(3, 50), "keras", {"stale": {"features": 8}}, ("stale-variables", "head-included")),
    (30 * (lstm(3, 50, 2)), gw.LSTM(3, 50), "keras", {"timesteps": 30}, ("another-framework", "timesteps-multiplied")),
    (3 * 50 * 55 + 51, gw.LSTM(3, 50), "keras", {}, ("head-included", "cell-exchanged")),
    (lstm(50, 3) + 4, gw.LSTM(3, 50), "keras", {}, ("head-included", "features-units-exchanged")),
    (lstm(3, 50, biases=2), gw.LSTM(3, 50), "keras", {"head": 1}, ("head-forgotten", "another-framework")),
]


@pytest.mark.parametrize(("claimed", "spec", "framework", "known", "pair"), PAIRS, ids=lambda each: str(each)[:12])
def test_two_mistakes_give_a_number(claimed, spec, framework, known, pair):
    found = gw.diagnose(claimed, spec, framework, **known)
    assert set(found[0].mistake.split(" + ")) == set(pair)
    assert found[0].value == claimed
    assert found[0].text.startswith("Two mistakes at once. ")
    assert len(found) <= 5


def test_one_mistake_is_likelier_than_two():
    for claimed in (120, 480 - 40, 480 + 40, 491):
        found = gw.diagnose(claimed, gw.LSTM(1, 10), "keras")
        assert found
        assert not [each.mistake for each in found if "+" in each.mistake]


def test_two_mistakes_do_not_undo_each_other():
    """Both directions counted and one of them forgotten would give 10,800 + 101: nobody does that."""
    assert gw.diagnose(lstm(3, 50) + 101, gw.LSTM(3, 50), "keras", head=1) == []


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.parametrize("format", ["plain", "github", "latex", "html", "csv", "json"])
def test_command_in_every_format(format):
    done = run("diagnose", 120, "keras", "-x", 1, "-u", 10, "-f", format)
    assert done.exit_code == 0
    assert "output-size-one" in done.output
    assert "recurrent-kernel-diagonal" in done.output


def test_command_as_data():
    facts = json.loads(run("diagnose", 120, "keras", "-x", 1, "-u", 10, "-f", "json").output)
    first = facts["tables"][0]["rows"][0]
    assert (first["mistake"], first["gives"]) == ("output-size-one", 120)
    assert "enters squared" in first["in words"]
    assert any("enters squared" in note for note in facts["notes"])
    assert "enters squared" in run("diagnose", 120, "keras", "-x", 1, "-u", 10, "-f", "csv").output


def test_help_keeps_its_examples_on_lines_of_their_own():
    lines = [line.strip() for line in run("diagnose", "--help").output.splitlines()]
    assert "gatewise diagnose 120 keras -x 1 -u 10" in lines


def test_command_takes_keras_unless_said():
    assert run("diagnose", 120, "-x", 1, "-u", 10).output == run("diagnose", 120, "keras", "-x", 1, "-u", 10).output
    assert "claimed=abc is not a whole number" in run("diagnose", "abc").stderr


def test_command_says_yes_and_no():
    right = run("diagnose", "10,851", "keras", "-x", 3, "-u", 50, "--head", 1)
    assert right.exit_code == 0
    assert "10,851 is right" in right.output
    nothing = run("diagnose", 481, "keras", "-x", 1, "-u", 10)
    assert nothing.exit_code == 1
    assert "No mistake on the list gives 481." in nothing.output
    assert "The nearest" in nothing.output


def test_command_with_stale_sizes():
    done = run("diagnose", 24, "keras", "-x", 1, "-u", 1, "--stale", "features=3", "--stale", "units=2")
    assert "stale-variables" in done.output


@pytest.mark.parametrize(
    "args",
    [
        (0, "keras", "-x", 1, "-u", 2),
        (-5, "keras", "-x", 1, "-u", 2),
        ("abc", "keras", "-x", 1, "-u", 2),
        (12, "kears", "-x", 1, "-u", 2),
        (12, "keras", "-u", 2),
        (12, "keras", "-x", 1, "-u", 2, "--head", 0),
        (12, "keras", "-x", 1, "-u", 2, "--stale", "unit=3"),
        (12, "keras", "-x", 1, "-u", 2, "--timesteps", "many"),
    ],
)
def test_bad_use(args):
    done = run("diagnose", *args)
    assert done.exit_code == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("  Hint: ")


def test_in_a_notebook():
    found = gw.diagnose(120, gw.LSTM(1, 10), "keras")
    assert "<table>" in found._repr_html_()
    assert "| output-size-one" in found._repr_markdown_()
    assert str(found).startswith("120 is not right")
