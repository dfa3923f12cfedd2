"""Attention as Keras's layers have it, and what stands near it: a softmax under a mask, dot products along an axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gatewise.core.between import Dot, Softmax

FAR = 1e9
"""What Keras takes from the scores of steps that do not count."""

SHORTEST = 1e-7
"""The least length that Keras divides a vector by (``keras.config.epsilon()``)."""


class _Attending(nn.Module):
    """Adds up the steps of a value in the shares that the scores of their keys give them."""

    scale: nn.Parameter | None

    def __init__(self, dropout: float, causal: bool, return_scores: bool) -> None:
        super().__init__()
        self.dropout, self.causal, self.return_scores = dropout, causal, return_scores

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the score (batch, queries, steps) of each step of the key with each of the query."""
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        *,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend.

        Args:
            query: ``(batch, queries, features)``.
            value: ``(batch, steps, size)``.
            key: ``(batch, steps, features)``, or None for the value.
            query_mask: ``(batch, queries)``, true where a step counts; the others give zeros.
            value_mask: ``(batch, steps)``, true where a step counts; the others have no share.

        Returns:
            ``(batch, queries, size)``; with ``return_scores`` the shares ``(batch, queries, steps)``, too.
        """
        scores = self.score(query, value if key is None else key)
        seen = None if value_mask is None else value_mask.unsqueeze(1)
        if self.causal:
            before = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).tril()
            seen = before if seen is None else seen & before
        if seen is not None:
            scores = torch.where(seen, scores, scores - FAR)
        shares = functional.dropout(scores.softmax(-1), self.dropout, self.training)
        output = shares @ value
        if query_mask is not None:
            output = torch.where(query_mask.unsqueeze(-1), output, 0.0)
        return (output, shares) if self.return_scores else output


class Attention(_Attending):
    """Attention by the product of query and key, or by the sum of their features behind a tanh (``keras.layers``'s).

    Args:
        score: ``"dot"``: ``scale * (q · k)``; ``"concat"``: ``concat_score * sum(tanh(scale * (q + k)))``.
        scale: Whether there is a parameter ``scale``, one number.
        dropout: Rate of dropout on the shares, in training only.
        causal: Whether a step of the query sees no step of the value behind it.
        return_scores: Whether the shares come out, too.
        dtype: Type of the weights.

    >>> query, value = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]]])
    >>> Attention()(query, value, value_mask=torch.tensor([[True, True, False]]))
    tensor([[[2., 0.]]])
    """

    concat_score: nn.Parameter | None

    def __init__(
        self,
        *,
        score: str = "dot",
        scale: bool = False,
        dropout: float = 0.0,
        causal: bool = False,
        return_scores: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dropout, causal, return_scores)
        self.by = score
        for name, there in (("scale", scale), ("concat_score", score == "concat")):
            self.register_parameter(name, nn.Parameter(torch.ones((), dtype=dtype)) if there else None)

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the score (batch, queries, steps) of each step of the key with each of the query."""
        if self.concat_score is None:
            scores = query @ key.transpose(1, 2)
            return scores if self.scale is None else scores * self.scale
        pairs = query.unsqueeze(2) + key.unsqueeze(1)
        pairs = pairs if self.scale is None else pairs * self.scale
        return self.concat_score * pairs.tanh().sum(-1)

    def extra_repr(self) -> str:
        """Say its options."""
        return f"score={self.by!r}, scale={self.scale is not None}, dropout={self.dropout}, causal={self.causal}"


class AdditiveAttention(_Attending):
    """Attention by a weighted sum: ``sum(scale * tanh(q + k))``, a factor for each feature.

    Args:
        features: Size of query and key.
        scale: Whether there is a parameter ``scale``; else all factors are 1.

    The other arguments are those of ``Attention``.

    >>> attention = AdditiveAttention(2, return_scores=True)
    >>> [each.shape for each in attention(torch.zeros(4, 1, 2), torch.zeros(4, 7, 2))]
    [torch.Size([4, 1, 2]), torch.Size([4, 1, 7])]
    """

    def __init__(
        self,
        features: int,
        *,
        scale: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
        return_scores: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dropout, causal, return_scores)
        self.features = features
        limit = (3 / features) ** 0.5  # Keras's glorot_uniform
        drawn = torch.empty(features, dtype=dtype).uniform_(-limit, limit)
        self.register_parameter("scale", nn.Parameter(drawn) if scale else None)

    def score(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the score (batch, queries, steps) of each step of the key with each of the query."""
        pairs = (query.unsqueeze(2) + key.unsqueeze(1)).tanh()
        return pairs.sum(-1) if self.scale is None else pairs @ self.scale

    def extra_repr(self) -> str:
        """Say its options."""
        return f"{self.features}, scale={self.scale is not None}, dropout={self.dropout}, causal={self.causal}"


def softmaxed(spec: Softmax, value: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax along some axes; what a mask leaves out takes no part, and gives zeros.

    >>> softmaxed(Softmax(), torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    value = value if mask is None else torch.where(mask, value, -FAR)
    shares = value.softmax(spec.axis[0]) if len(spec.axis) == 1 else (value - value.logsumexp(spec.axis, True)).exp()
    return shares if mask is None else torch.where(mask, shares, 0.0)


def dotted(spec: Dot, first: Tensor, second: Tensor) -> Tensor:
    """Return the products of two tensors along an axis of each, added up.

    >>> dotted(Dot((1, 1), normalize=True), torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 3.0]]))
    tensor([[0.7071]])
    """
    if spec.normalize:
        first, second = (
            functional.normalize(value, dim=axis, eps=SHORTEST)
            for value, axis in zip((first, second), spec.axes, strict=True)
        )
    made = torch.einsum(spec.equation(first.ndim, second.ndim), first, second)
    return made if made.ndim > 1 else made.unsqueeze(1)
