"""Meta Pseudo Labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from nlp_ssl.method import Method, register
from nlp_ssl.ops import random
from nlp_ssl.ops.distributed import mean, stat
from nlp_ssl.ops.functional import as_logits, ce, kl, linear_ramp, sharpen, softmax
from nlp_ssl.run import StepContext
from nlp_ssl.types import Batch, DataSpec, Forward, Losses
from nlp_ssl.utils.hyperparameters import RampUp
from nlp_ssl.utils.ranges import Share, Temperature, Weight


@register("meta_pseudo_labels")
@dataclass(frozen=True)
class MetaPseudoLabels(Method):
    """Meta Pseudo Labels (Pham et al. 2021, arXiv:2003.10580): a teacher whose labels are judged by what they teach.

    Loss: first the student's, mean_N CE(l, student(u_s)) + label_weight * mean_B w CE(y, student(x)), and an update;
    then the teacher's, mean_B w CE(y, teacher(x)) + weight * ramp(t) * mean_N 1[max p > threshold]
    KL(sg sharpen(p, temperature) || teacher(u_s)) + meta_weight * h * mean_N CE(l, teacher(u_w)), p = sg
    softmax(teacher(u_w)). The labels l are "sampled" from p, its "argmax", or p itself ("soft").
    h says how much the student's update helped: its loss on the labeled rows before minus after, without dropout, less
    its running mean, cut to +-clip_h; 0 where the update was skipped. h > 0 makes the labels more likely. In the last
    `finetune` of the steps the student alone goes on, on the labels alone. The ramp is linear.

    Differs from the paper: labels come from the plain text, h is the measured difference instead of a product of
    gradients (with AdamW that is not the same: the update also follows earlier gradients), no label smoothing, and
    the student sees the labels all along instead of in a last stage (the paper's: label_weight 0, finetune 0.2); that
    adds nearly the same to every h, which the running mean takes off. After a warm start p is aligned to the estimated
    class shares. `weight`, `threshold` and `temperature` are those of UDA here. `sign` "official" is the released
    code's after minus before. Soft labels need no h: sum_c q_c J_c, q the teacher's aligned probabilities and J the
    slope of the student's log-probabilities along the gradient of its labeled loss, is the exact gradient through one
    student step (`functional.label_gradient`), taken after the update and scaled to clip_h at most.

    Example:
        from nlp_ssl import MetaPseudoLabels
        method = MetaPseudoLabels(label_weight=0.0, finetune=0.2)  # the paper's: the student sees the labels at the end
    """

    views = {"x": "weak", "u_w": "weak", "u_s": "strong"}
    nets = {"student": "trained", "teacher": "trained"}
    images = {"clip_h": 0.1}
    labels: Annotated[
        Literal["sampled", "argmax", "soft"],
        "what the student learns of the teacher: a class drawn, the likeliest class, or all probabilities",
    ] = "sampled"
    threshold: Annotated[
        Share, "probability that the teacher's own consistency loss asks of a row; lower it where few rows reach it"
    ] = 0.8
    temperature: Annotated[
        Temperature, "temperature of the targets of the teacher's own consistency loss; below 1 sharpens them"
    ] = 0.4
    weight: Annotated[
        Weight, "weight of the teacher's own consistency loss, that of UDA; 0 leaves labels and feedback"
    ] = 1.0
    ramp_up: RampUp = 0.1
    meta_weight: Annotated[
        Weight, "weight of the feedback from the student in the teacher's loss; 0 leaves a teacher trained by UDA"
    ] = 1.0
    label_weight: Annotated[
        Weight, "weight of the labels in the student's loss; 0 with `finetune` is the paper's student"
    ] = 1.0
    clip_h: Annotated[
        Weight,
        "largest size of the feedback, a difference of losses in nats; lower it where the teacher becomes unstable",
    ] = 0.01
    baseline_decay: Annotated[
        Share, "decay of the running mean that is taken off the feedback, per step; 0 compares with the last step"
    ] = 0.9
    finetune: Annotated[
        Share, "share of the steps, the last ones, in which the student learns from the labels alone"
    ] = 0.0
    sign: Annotated[
        Literal["theory", "official"],
        "theory rewards labels that lowered the student's loss, official is the released code's opposite sign",
    ] = "theory"

    def init_state(self, spec: DataSpec) -> dict[str, Tensor]:
        return {"usual_gain": torch.zeros(())}

    def step(self, run: StepContext, batch: Batch) -> Iterator[Losses]:
        student, teacher, y = run.nets["student"], run.nets["teacher"], batch["y"]
        if self.finetune and run.progress >= 1.0 - self.finetune:
            (x,) = student(batch, "x")  # [B, C]
            yield {"student_sup": mean(batch["w"] * ce(x, y))}
            return

        with torch.no_grad():
            (t,) = teacher(batch, "u_w", dropout=False)  # [N, C]
        own = softmax(t.detach())
        p = run.aligned(own)
        label = self._label(p)  # [N] or [N, C]
        keep = (p.amax(-1) > self.threshold).to(p.dtype)  # [N]
        run.watch(p, keep, batch["true_labels"])
        before = _labeled_loss(student, batch)
        x, s = student(batch, "x", "u_s")  # [B, C], [N, C]: one forward
        yield {"student": mean(ce(s, label)), "student_sup": self.label_weight * mean(batch["w"] * ce(x, y))}

        h = self._judged(run, before, _labeled_loss(student, batch))
        slope = self._slope(student, batch) if self.labels == "soft" else None
        x, w, s = teacher(batch, "x", "u_w", "u_s")  # [B, C], [N, C], [N, C]: one forward
        # Labels were drawn after alignment: it is their probability there that h moves.
        w = w + as_logits(p) - as_logits(own)
        weight = self.weight * linear_ramp(run.progress, self.ramp_up)
        yield {
            "sup": mean(batch["w"] * ce(x, y)),
            "unsup": weight * mean(keep * kl(sharpen(p, self.temperature), s)),
            "meta": self.meta_weight
            * (h * mean(ce(w, label)) if slope is None else mean((softmax(w) * slope).sum(-1))),
        }

    def _label(self, p: Tensor) -> Tensor:
        if self.labels == "soft":
            return p
        return random.classes(p) if self.labels == "sampled" else p.argmax(-1)

    def _slope(self, student: Forward, batch: Batch) -> Tensor:
        """What each probability of each label [N, C] adds to the student's labeled loss, at most clip_h in size."""
        y, w = batch["y"], batch["w"]
        (slope,) = student.slope(batch, "u_s", of=("x",), loss=lambda z: (w * ce(z[0], y)).mean())
        signed = slope if self.sign == "theory" else -slope
        return signed * (self.clip_h / signed.abs().amax(-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)

    def _judged(self, run: StepContext, before: Tensor, after: Tensor) -> Tensor:
        """The h of the student's labeled losses around its update, the same on every rank."""
        gain = before - after if self.sign == "theory" else after - before
        usual = run.state["usual_gain"]
        moved = gain != 0  # without dropout an update that was skipped leaves the very same loss
        h = torch.where(moved, (gain - usual).clamp(-self.clip_h, self.clip_h), 0.0)
        run.state["usual_gain"] = torch.where(moved, usual.lerp(gain, 1.0 - self.baseline_decay), usual)
        run.log("h", h)
        return h


@torch.no_grad()
def _labeled_loss(net: Forward, batch: Batch) -> Tensor:
    """Mean loss on the labeled rows of all ranks, without dropout."""
    (x,) = net(batch, "x", dropout=False)  # [B, C]
    return stat(batch["w"] * ce(x, batch["y"]))
