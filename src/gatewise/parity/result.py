"""What a comparison returns: outputs, test faults, gradients and training steps, with differences and tolerances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class OutputParity(NamedTuple):
    """One output of both sides.

    Attributes:
        name: Layer and output.
        shape: Its shape in the first trial.
        max_abs: The largest absolute difference over all trials.
        max_rel: That difference relative to the value there.
        where: Its index, batch first.
        tolerance: What it may be.
        passed: Whether it is no more than that, and non-finite values stand at the same places.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    where: tuple[int, ...]
    tolerance: float
    passed: bool


class Planted(NamedTuple):
    """A test fault, and how far it moves the outputs, in tolerances."""

    layer: str
    mistake: str
    moved: float


class Found(NamedTuple):
    """A mistake that keeps two sides apart.

    Attributes:
        layer: The layer of the target that has it; several with commas between, where all have it alike.
        mistake: Its slug, one of ``TEXTS``.
        text: What brings the two together, with the difference before and after.
        before: The largest difference of the outputs with it, the mistakes named before being undone.
        after: The same without it.
    """

    layer: str
    mistake: str
    text: str
    before: float
    after: float


class GradientParity(NamedTuple):
    """The gradient of one tensor, or of one input, on both sides; or a tensor's values after training.

    Attributes:
        layer: The layer of the source, or the input.
        tensor: The canonical part; empty for an input.
        max_abs: The largest difference.
        largest: The largest gradient there is in it; after training, the furthest that it can have moved, and of moving
            statistics the furthest that one did.
        tolerance: What the difference may be.
        passed: Whether it is no more.
    """

    layer: str
    tensor: str
    max_abs: float
    largest: float
    tolerance: float
    passed: bool


class TrainingParity(NamedTuple):
    """Some steps of Adam on both sides, from the same weights and over the same batches.

    Attributes:
        steps: How many.
        losses: The loss before each step, here and there.
        max_rel: The largest difference of two losses, relative to the source's.
        tolerance: What that may be.
        weights: Each tensor of the source after the last step.
        dtype: The type of numbers.
        passed: Whether losses and weights agree.
        words: What was compared, and what cannot agree, a sentence each.
    """

    steps: int
    losses: tuple[tuple[float, float], ...]
    max_rel: float
    tolerance: float
    weights: tuple[GradientParity, ...]
    dtype: str
    passed: bool
    words: tuple[str, ...]


@dataclass(frozen=True)
class Parity:
    """What came out of a comparison.

    Attributes:
        verdict: ``"passed"``, ``"failed"`` or ``"inconclusive"``.
        outputs: One for each output.
        tolerance: The relative tolerance: a difference passes below it times the largest output (at least 1).
        why: Where the tolerance comes from, in words.
        dtype: The type that the outputs were compared in.
        seed: Seed of the inputs.
        trials: What was fed, a text each.
        planted: The test faults.
        advice: What to do where it did not pass, and what was not tried.
        diagnosis: The mistakes that keep the two apart, where they differ and it is known why.
        gradients: Each tensor's gradient, where gradients were compared.
        training: Some training steps, where they were compared.
        remarks: What a person's own call of both has to mind, and what was not compared, a sentence each.
        basis: ``"read"`` where the layers of both sides are known, ``"called"`` where they were only called.
    """

    verdict: str
    outputs: tuple[OutputParity, ...]
    tolerance: float
    why: str
    dtype: str
    seed: int
    trials: tuple[str, ...]
    planted: tuple[Planted, ...]
    advice: tuple[str, ...]
    diagnosis: tuple[Found, ...] = ()
    gradients: tuple[GradientParity, ...] = ()
    training: TrainingParity | None = None
    remarks: tuple[str, ...] = ()
    basis: str = "read"

    @property
    def passed(self) -> bool:
        """Say whether the verdict is ``passed``."""
        return self.verdict == "passed"

    def __str__(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "plain")

    def _repr_markdown_(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "github")

    def _repr_html_(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "html")
