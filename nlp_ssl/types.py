"""The values that travel between data, nets, methods and the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import numpy as np
from torch import Tensor

Losses = dict[str, Tensor]

Role = Literal["trained", "ema", "frozen"]
Kind = Literal["single-label", "multi-label"]  # one label per row, or any number of them


class Batch(TypedDict):
    """One step's rows. Blocks are "x" (labeled) and "u" (unlabeled); views are "x", "u_w", "u_s", "u_s2", ..."""

    inputs: dict[str, Tensor]  # one padded block of rows [R, ...]
    lengths: np.ndarray  # [R] on the host: tokens of each row (1 for images)
    rows: dict[str, slice]  # view name -> its rows in the block
    y: Tensor  # [B] classes or [B, C] probabilities; of multi-label data
    # as `nlp_ssl.ops.multilabel` says
    w: Tensor  # [B] weights of the labeled rows
    id: dict[str, Tensor]  # block -> number of each row among the labeled ("x") or unlabeled ("u") rows
    keys: dict[str, np.ndarray]  # view -> key of each row's augmentation, uint64
    true_labels: Tensor  # [N] classes of the unlabeled rows, -1 where unknown: for logging only


@dataclass(frozen=True)
class DataSpec:
    """What a method may know of the data before training.

    For multi-label data rows are (row, label) and classes no and yes: see `nlp_ssl.ops.multilabel`.
    """

    num_classes: int
    pool_size: int = 0
    labeled_size: int = 0
    prior: tuple[float, ...] | None = None  # estimated share of each class in the pool
    kind: Kind = "single-label"


@dataclass(frozen=True)
class Head:
    """One more output on the pooled features, trained with the net and left out of the saved model.

    "linear" and "mlp" (one hidden layer) start at random, "classifier" as a noisy copy of the net's own, behind a
    dropout of its own. Width 0 is the features' own width, or the number of classes.
    """

    kind: Literal["linear", "mlp", "classifier"]
    width: int = 0


@dataclass(frozen=True)
class PseudoLabels:
    """Labels for rows of the pool, from a teacher, a file or people.

    Attributes:
        p: float64 [U, C], probabilities of every row of the pool; zeros where nothing is known.
        copies: int64 [U], how often a row is among those that a student learns from; 0 leaves it out.
        weights: float64 [U], what the loss of a row counts; of rows that are left out it says nothing.
        hard: learn the most probable class instead of the probabilities.
    """

    p: np.ndarray
    copies: np.ndarray
    weights: np.ndarray
    hard: bool = True

    @property
    def label(self) -> np.ndarray:
        """Most probable class [U], -1 where nothing is known."""
        label: np.ndarray = np.where(self.p.sum(1) > 0, self.p.argmax(1), -1)
        return label

    def targets(self) -> np.ndarray:
        """What is to be learned, float64 [U, C]."""
        known = self.p.sum(1, keepdims=True) > 0
        return np.eye(self.p.shape[1])[self.p.argmax(1)] * known if self.hard else self.p

    def same(self, other: "PseudoLabels") -> bool:
        """Whether a student would learn just the same."""
        used = self.copies > 0
        return (
            bool((self.copies == other.copies).all())
            and bool((self.weights[used] == other.weights[used]).all())
            and bool((self.targets()[used] == other.targets()[used]).all())
        )


class Edit(Protocol):
    """A change of a hidden representation: MixUp, adversarial noise, masking.

    `layer` 0 is the input (word embeddings [R, L, H] before positions are added, or pixels [R, C, H, W]);
    k > 0 is the output of the k-th transformer layer, or of the k-th stage of an image net.
    """

    @property
    def layer(self) -> int: ...

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Edited values and the mask [R, L] of tokens that later layers and pooling see; None leaves it as it is.

        `mask` [R, L] is 1 for tokens and 0 for padding, `content` [R, L] is 1 for the text's own tokens and 0 for
        special ones and padding; both are None for images. Rows come in the order of the views asked for.
        """
        ...


class Forward(Protocol):
    """`net(batch, *views) -> logits per view`: the only modality-aware calls of a method."""

    @property
    def depth(self) -> int:
        """The last layer that an edit can change."""
        ...

    def __call__(self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True) -> Sequence[Tensor]:
        """Logits [n, C] of each view, from one forward pass."""
        ...

    def outputs(
        self, batch: Batch, *views: str, edit: Edit | None = None, dropout: bool = True
    ) -> Sequence[Mapping[str, Tensor]]:
        """Of each view "logits" [n, C] and, by name, what the method's heads give [n, width], from one forward pass."""
        ...

    def room(self, batch: Batch, *views: str) -> Tensor:
        """1 where noise may act on the inputs of the views, 0 at special tokens and padding: [R, L, H] or pixels."""
        ...

    def gradient(
        self,
        batch: Batch,
        *views: str,
        loss: Callable[[Sequence[Tensor]], Tensor],
        noise: Tensor | None = None,
    ) -> Tensor:
        """Gradient of loss(logits of each view) with respect to the inputs, at inputs + noise: [R, L, H] or pixels.

        Zero where `room` is zero. Dropout is off, arithmetic is float32, and no gradient reaches the parameters.
        """
        ...

    def slope(
        self, batch: Batch, *views: str, of: Sequence[str], loss: Callable[[Sequence[Tensor]], Tensor]
    ) -> Sequence[Tensor]:
        """Derivative [n, C] of each view's log-probabilities along the parameters' gradient of a loss on other views.

        What a small step of the parameters up that gradient would add. Dropout is off, arithmetic is float32, the
        gradient is the mean over the ranks, and the parameters are afterwards what they were.
        """
        ...

    def masked_tokens(self, batch: Batch, *views: str) -> tuple[Tensor, Tensor]:
        """Masked language modelling on the views' rows: (mean loss of a row's chosen tokens [R], their number [R])."""
        ...
