"""Image classifiers: a small Wide-ResNet of our own and any torchvision backbone, saved as safetensors and JSON."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nlp_ssl.errors import ConfigError, DataError, nearest
from nlp_ssl.nets.base import Module

if TYPE_CHECKING:
    from nlp_ssl.types import Edit

CONFIG_FILE = "image_net.json"
WEIGHTS_FILE = "model.safetensors"
# Auxiliary heads (googlenet, inception), no linear head (squeezenet), one fixed image size (vit, maxvit).
_UNSUITED = ("googlenet", "inception", "squeezenet", "vit_", "maxvit")


@dataclass(frozen=True)
class ImageSpec:
    """What is needed to rebuild a net and to feed it: the pixels are (value / 255 - mean) / std, channel by channel."""

    name: str
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ImageNet(Module):
    """An image classifier: stages from pixels [R, C, H, W] to pooled features [R, D], then one linear layer.

    `pretrained` says whether the stages start trained: if not, all layers take the learning rate of new layers.
    """

    def __init__(self, spec: ImageSpec, stages: nn.Sequential, width: int, pretrained: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.pretrained = pretrained
        self.stages = stages
        self.classifier = nn.Linear(width, len(spec.classes))
        nn.init.xavier_normal_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def embed(self, inputs: dict[str, Tensor], edit: "Edit | None" = None) -> Tensor:
        """Pooled features [R, D] of inputs["pixel_values"] [R, C, H, W].

        `edit.layer` 0 is the normalised pixels, k the output of the k-th stage; the last stage gives the features.

        Raises:
            ConfigError: edit.layer beyond the last stage.
        """
        if edit is not None and not 0 <= edit.layer <= len(self.stages):
            raise ConfigError(
                242, f"{self.spec.name} can be edited at layers 0 to {len(self.stages)}, not {edit.layer}"
            )
        h = _edited(inputs["pixel_values"], 0, edit)
        for k, stage in enumerate(self.stages, start=1):
            h = _edited(stage(h), k, edit)
        return h

    def depth(self) -> int:
        """Number of stages."""
        return len(self.stages)

    def room(self, inputs: dict[str, Tensor]) -> Tensor:
        """Ones [R, C, H, W]: noise may change every pixel."""
        return torch.ones_like(inputs["pixel_values"])

    def head(self, features: Tensor) -> Tensor:
        """Logits [R, C] of features [R, D]."""
        logits: Tensor = self.classifier(features)
        return logits

    def layers(self) -> list[str]:
        """Prefixes of parameter names from the input to the head."""
        return [f"stages.{k}." for k in range(len(self.stages))]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return self.spec.classes

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that pixels are normalized by."""
        return self.spec.mean, self.spec.std

    def head_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the names of parameters that start untrained."""
        return ("classifier.",) if self.pretrained else ("stages.", "classifier.")

    def save(self, folder: Path) -> None:
        """Writes weights and description into an existing folder; each file is complete or absent."""
        weights = {
            name: value.detach().cpu().contiguous()
            for name, value in self.state_dict().items()
            if not name.startswith("extra.")
        }
        save_file(weights, folder / f".{WEIGHTS_FILE}.part")
        os.replace(folder / f".{WEIGHTS_FILE}.part", folder / WEIGHTS_FILE)
        text = json.dumps({"format": 1, **asdict(self.spec)}, indent=2, ensure_ascii=False)
        (folder / f".{CONFIG_FILE}.part").write_text(text + "\n", encoding="utf-8")
        os.replace(folder / f".{CONFIG_FILE}.part", folder / CONFIG_FILE)

    @classmethod
    def load(cls, folder: Path) -> "ImageNet":
        """The net that `save` wrote. Reads JSON and safetensors only.

        Raises:
            DataError: a file is missing, damaged or does not fit the other.
            ConfigError: the architecture is unknown, or needs torchvision and it is not installed.
        """
        spec = _read_spec(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(170, f"{path}: cannot be read ({_line(error)}): save the net again") from error

        def build() -> ImageNet:
            return build_image_net(
                spec.name, len(spec.classes), spec.channels, classes=spec.classes, mean=spec.mean, std=spec.std
            )

        with torch.device("meta"):  # a description can be of any size: it takes no memory yet
            described = build().state_dict()
        if {k: v.shape for k, v in described.items()} != {k: v.shape for k, v in weights.items()}:
            raise DataError(171, f"{path}: weights do not fit {spec.name!r} as {CONFIG_FILE} describes it")
        net = build()
        net.load_state_dict(weights)
        net.pretrained = True
        return net


def build_image_net(
    name: str,
    num_classes: int,
    channels: int,
    *,
    pretrained: bool = False,
    classes: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> ImageNet:
    """A fresh net: "wrn-D-K" (a Wide-ResNet of depth D and width K) or a torchvision backbone such as "resnet18".

    `pretrained` starts a torchvision backbone from its published weights, read by PyTorch's restricted loader and
    checked against their hash. `classes`, `mean` and `std` are kept for whoever loads the net: the names of the
    classes ("0", "1", ... if not given) and the normalisation of the pixels (none if not given).

    Raises:
        ConfigError: unknown name, impossible depth, channels other than 1 and 3, lengths that do not fit, torchvision
            not installed, or weights that cannot be had.
    """
    if channels not in (1, 3):
        raise ConfigError(243, f"images must have 1 (grey) or 3 (RGB) channels, got {channels}")
    spec = ImageSpec(
        name,
        tuple(classes) or tuple(str(k) for k in range(num_classes)),
        channels,
        tuple(mean) or (0.0,) * channels,
        tuple(std) or (1.0,) * channels,
    )
    if num_classes < 1 or len(spec.classes) != num_classes or not len(spec.mean) == len(spec.std) == channels:
        raise ConfigError(244, f"{num_classes} classes and {channels} channels do not fit classes, mean and std given")
    match = re.fullmatch(r"wrn-(\d{1,3})-(\d{1,2})", name)
    if match is None:
        return ImageNet(spec, *_torchvision_stages(name, channels, pretrained), pretrained)
    if pretrained:
        raise ConfigError(245, f"there are no pretrained weights of {name!r}: choose a torchvision backbone")
    return ImageNet(spec, *_wide_resnet_stages(int(match[1]), int(match[2]), channels))


def _edited(h: Tensor, layer: int, edit: "Edit | None") -> Tensor:
    """Images have no padding: the mask is None and stays so."""
    return h if edit is None or edit.layer != layer else edit(h, None, None)[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


# --- the saved description


def _read_spec(path: Path) -> ImageSpec:
    """The description in a JSON file; every field is checked, nothing in it names code."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(172, f"{path}: cannot be read ({_line(error)}): save the net again") from error
    if not isinstance(raw, dict) or raw.get("format") != 1 or not _well_formed(raw):
        raise DataError(173, f"{path}: not the description of an image net: save the net again")
    return ImageSpec(
        raw["name"],
        tuple(raw["classes"]),
        raw["channels"],
        tuple(map(float, raw["mean"])),
        tuple(map(float, raw["std"])),
    )


def _well_formed(raw: Mapping[str, Any]) -> bool:
    def holds(key: str, kind: type | tuple[type, ...]) -> bool:
        value = raw.get(key)
        return isinstance(value, list) and len(value) > 0 and all(isinstance(v, kind) for v in value)

    return (
        isinstance(raw.get("name"), str)
        and isinstance(raw.get("channels"), int)
        and holds("classes", str)
        and all(holds(key, (int, float)) and all(abs(v) < 1e6 for v in raw[key]) for key in ("mean", "std"))
    )


# --- Wide-ResNet


class WarmBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose running statistics follow the last tenth of the updates until `momentum` is reached.

    FixMatch's 0.001 is made for a million steps: after a few hundred, statistics kept that way still describe the start
    values and the untrained net, and evaluation is at chance level. Here update n has the weight 10 / (n + 9), never
    less than `momentum`: the same from update 10,000 on. A momentum of 0 keeps the statistics as they are.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-3, momentum=0.001)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        # Momentum 1 makes them the statistics of this batch; a weight in a tensor saves a wait for the device.
        out = F.batch_norm(input, mean, var, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
        if self.momentum:
            self.num_batches_tracked += 1
            weight = (10 / (self.num_batches_tracked + 9)).clamp(min=self.momentum)
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(var, weight)
        return out


class _Block(nn.Module):
    """Pre-activation residual block; where the width changes the shortcut is a 1 x 1 convolution."""

    def __init__(self, width_in: int, width: int, stride: int, activate_shortcut: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = WarmBatchNorm2d(width_in), WarmBatchNorm2d(width)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = width_in == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)
        self.activate_shortcut = activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        active = F.leaky_relu(self.norm1(x), 0.1)
        skip: Tensor = self.shortcut(active if self.activate_shortcut else x)
        h: Tensor = self.conv2(F.leaky_relu(self.norm2(self.conv1(active)), 0.1))
        return skip + h


def _wide_resnet_stages(depth: int, widen: int, channels: int) -> tuple[nn.Sequential, int]:
    """Three groups of blocks and the pooling of a Wide-ResNet (Zagoruyko & Komodakis 2016), as FixMatch trains it."""
    if depth < 10 or depth % 6 != 4 or widen < 1:
        raise ConfigError(246, f"'wrn-{depth}-{widen}': the depth must be 10, 16, 22, 28, ... and the width at least 1")
    blocks = (depth - 4) // 6
    widths = [16, 16 * widen, 32 * widen, 64 * widen]
    groups = []
    for k in range(3):
        stride = 1 if k == 0 else 2
        group = [_Block(widths[k], widths[k + 1], stride, activate_shortcut=k == 0)]
        group += [_Block(widths[k + 1], widths[k + 1], 1, activate_shortcut=False) for _ in range(blocks - 1)]
        groups.append(nn.Sequential(*group))
    groups[0].insert(0, nn.Conv2d(channels, widths[0], 3, padding=1, bias=False))
    pool = nn.Sequential(WarmBatchNorm2d(widths[3]), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    stages = nn.Sequential(*groups, pool)
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return stages, widths[3]


# --- torchvision


def _torchvision_models() -> ModuleType:
    try:
        from torchvision import models
    except ImportError as error:
        raise ConfigError(247, "this backbone needs torchvision: pip install nlp-ssl[vision]") from error
    module: ModuleType = models
    return module


def _torchvision_stages(name: str, channels: int, pretrained: bool) -> tuple[nn.Sequential, int]:
    """One stage: the backbone with its last linear layer taken off and its first convolution fitted to the channels."""
    models = _torchvision_models()
    known = [n for n in models.list_models(module=models) if not n.startswith(_UNSUITED)]
    if name not in known:
        raise ConfigError(248, f"unknown image net {name!r}.{nearest(name, [*known, 'wrn-16-2', 'wrn-28-2'])}")
    backbone: nn.Module = models.get_model(name, weights=None)
    if pretrained:
        backbone.load_state_dict(_published_weights(models, name))
    head_name, head = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear)][-1]
    backbone.set_submodule(head_name, nn.Identity())
    if channels == 1:
        _see_grey(next(m for m in backbone.modules() if isinstance(m, nn.Conv2d)))
    return nn.Sequential(backbone), head.in_features


def _published_weights(models: ModuleType, name: str) -> Mapping[str, Tensor]:
    """Downloaded once by torchvision; `weights_only` keeps its loader from running any code in the file."""
    try:
        weights: Mapping[str, Tensor] = models.get_model_weights(name).DEFAULT.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            249, f"weights of {name!r} cannot be had ({_line(error)}): set pretrained to false"
        ) from error
    return weights


def _see_grey(conv: nn.Conv2d) -> None:
    """Makes the convolution do to a grey image what it did to the same image in three equal channels."""
    conv.in_channels = 1
    conv.weight = nn.Parameter(conv.weight.detach().sum(1, keepdim=True))
