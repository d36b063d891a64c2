"""Tasks whose answer is known without a label: made by an edit of the inputs."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from nlp_ssl.errors import ConfigError
from nlp_ssl.ops.functional import ce
from nlp_ssl.types import Batch, Forward

PretextKind = Literal["order", "rotation"]
PretextTask = Annotated[
    Literal["none", "order", "rotation"],
    "second task with known answers: whether the halves of a text were swapped (order), or how an image was rotated",
]
_ANSWERS = {"order": 2, "rotation": 4}


@dataclass(frozen=True)
class Pretext:
    """Edit: rotates images [R, C, H, W] by answer x 90 degrees, or swaps the halves of texts [R, L, H] with answer 1.

    Raises:
        ConfigError: the task does not fit the inputs.
    """

    task: PretextKind
    answers: Tensor
    layer: int = 0

    def __call__(self, h: Tensor, mask: Tensor | None, content: Tensor | None) -> tuple[Tensor, None]:
        if self.task == "rotation":
            if h.dim() == 3 or (h.dim() == 4 and h.shape[2] != h.shape[3]):
                raise ConfigError(271, "the pretext task rotation needs square images: use none or order")
            turned = [torch.rot90(h, k, (2, 3)) if h.dim() == 4 else h.roll(k, 1) for k in range(4)]
            return torch.stack(turned)[self.answers, torch.arange(len(h))], None
        if h.dim() == 4:
            raise ConfigError(271, "the pretext task order needs texts: use none or rotation")
        if content is None:  # rows of plain numbers
            return torch.where(self.answers[:, None] > 0, h.roll(h.shape[1] // 2, 1), h), None
        return h.gather(1, self._order(content)[:, :, None].expand_as(h)), None

    def _order(self, content: Tensor) -> Tensor:
        """Source [R, L] of every token: the second half of a row's own tokens first, where the answer is 1."""
        count = content.sum(1, keepdim=True)  # [R, 1]
        rank = content.cumsum(1) - 1  # number of each token among the row's own
        moved = (rank + count // 2) % count.clamp(min=1)
        place = torch.arange(content.shape[1], device=content.device).expand_as(content)
        # Where each own token stands: special ones and padding sort behind.
        own = torch.where(content > 0, place, content.shape[1] + place).sort(1).values % content.shape[1]
        source = torch.where(content > 0, own.gather(1, moved.clamp(min=0)), place)
        return torch.where(self.answers[:, None] > 0, source, place)


def pretext_loss(net: Forward, batch: Batch, view: str, task: PretextKind) -> Tensor:
    """Cross-entropy [N] of the head "pretext" on a view whose rows were changed. Answers come from the rows' keys."""
    answers = torch.from_numpy((batch["keys"][view] % np.uint64(_ANSWERS[task])).astype(np.int64))
    answers = answers.to(batch["id"]["u"].device)  # [N]
    (out,) = net.outputs(batch, view, edit=Pretext(task, answers))
    return ce(out["pretext"], answers)
