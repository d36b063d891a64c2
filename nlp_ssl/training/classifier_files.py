"""A classifier in a folder or on the hub: a net, and beside it a JSON file with its classes and parameters."""

import json
import logging
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from huggingface_hub import HfApi

from nlp_ssl.config import TrainConfig
from nlp_ssl.data.arrays import InputError
from nlp_ssl.data.cleaning import label_name
from nlp_ssl.data.values import plain
from nlp_ssl.errors import ConfigError, RunError
from nlp_ssl.method import Method, RoundMethod
from nlp_ssl.nets import image
from nlp_ssl.nets.base import Module
from nlp_ssl.nets.image import ImageNet
from nlp_ssl.nets.opening import find_file, opening
from nlp_ssl.nets.text import load_text_net
from nlp_ssl.registry import get_method
from nlp_ssl.training.identity import current_names
from nlp_ssl.training.model_files import CLASSIFIER, place_files
from nlp_ssl.training.run_folder import RunFolder
from nlp_ssl.utils import atomic
from nlp_ssl.utils.ranges import from_options

log = logging.getLogger("nlp_ssl")


@dataclass(frozen=True)
class Saved:
    """What a folder holds.

    Attributes:
        net: the net.
        classes: its classes [C] in the type of the labels, in the order of the net's outputs.
        params: parameters of the classifier, as far as the folder tells them.
    """

    net: Module
    classes: np.ndarray
    params: dict[str, Any]


def save_classifier(folder: Path, net: Module, classes: np.ndarray, params: Mapping[str, Any]) -> None:
    """Writes the net's files and the file beside them, each whole or not at all.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """

    def write(staging: Path) -> None:
        net.save(staging)
        (staging / CLASSIFIER).write_text(_described(classes, params), encoding="utf-8")

    place_files(folder, write)


def save_params(folder: Path, classes: np.ndarray, params: Mapping[str, Any]) -> None:
    """Writes the file beside a net that a run has saved.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    atomic.write_text(folder / CLASSIFIER, _described(classes, params))


def _described(classes: np.ndarray, params: Mapping[str, Any]) -> str:
    values = {name: _as_json(value) for name, value in params.items()}
    return json.dumps({"params": values, "classes": classes.tolist(), "dtype": classes.dtype.str}, indent=1)


def open_classifier(name: str, known: Collection[str]) -> Saved:
    """What `save_classifier` or a run wrote, or any sequence classifier of transformers.

    Args:
        name: a folder, or a name of the hub.
        known: names of the parameters that there are.

    Raises:
        ConfigError: the model cannot be opened, or holds no classifier.
        DataError: its files are damaged.
    """
    path = find_file(name, CLASSIFIER)
    if path is None:
        net = _open_net(name)
        classes = np.array(net.classes, dtype=object)
        if len(classes) < 2:
            raise ConfigError(269, f"the model in {name} has one output, no classes to choose from: it is a regression")
        return Saved(net, classes, _params_of_run(Path(name)))
    try:
        saved = atomic.read_json(Path(path))
        params = _params(saved["params"])
        if not params.keys() <= set(known):
            raise ValueError("it has other parameters")
        classes = np.array(saved["classes"], dtype=saved.get("dtype"))
        names = [str(label_name(value)) for value in saved["classes"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise InputError(
            192, f"{path} is damaged: save the classifier again, or delete the file: the model opens alone"
        ) from error  # fmt: skip
    net = _open_net(name)
    if sorted(net.classes or ()) != sorted(names):
        raise InputError(193, f"{path} is of a model with other classes: save the classifier again")
    if list(net.classes or ()) != names:  # version 0.1.0 had orders of its own
        net = load_text_net(name, names)
    return Saved(net, classes, params)


def upload(
    repo_id: str, write: Callable[[Path], None], *, private: bool | None, token: str | None, commit_message: str
) -> str:
    """Uploads what `write` leaves in a folder to a repository of the hub, and returns its address.

    Raises:
        RunError: the hub cannot be reached, or does not let this account write there.
    """

    def refusal(reason: str) -> RunError:
        return RunError(308, f"cannot upload to {repo_id!r}: check the name, and log in with: hf auth login [{reason}]")

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        with opening(refusal):
            api = HfApi(token=token)
            address = str(api.create_repo(repo_id, private=private, exist_ok=True))
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    return address


def _open_net(name: str) -> Module:
    if (described := find_file(name, image.CONFIG_FILE)) is None:
        return load_text_net(name)
    find_file(name, image.WEIGHTS_FILE)  # of the hub: it is downloaded beside the other
    return ImageNet.load(Path(described).parent)


def _as_json(value: Any) -> Any:
    """A parameter as JSON has it; an object that JSON cannot hold is described."""
    if isinstance(value, Method | RoundMethod):
        return {"name": value.name, **asdict(value)}
    if isinstance(value, TrainConfig):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    value = plain(value)
    return value if value is None or isinstance(value, str | int | float | list | tuple) else {"described": repr(value)}


def _params(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they were saved, by this version or by 0.1.0."""
    params = dict(saved)
    params["method"] = _method(params["method"])
    if "seed" in params:
        params["random_state"] = params.pop("seed")
    settings = params.pop("options", None) or params.get("config")
    params["config"] = None if settings is None else from_options(TrainConfig, current_names(settings))
    if isinstance(strong := params.get("strong"), dict):
        described = strong.get("described")
        log.warning("the strong view %s is an object, which the file does not hold: give it again for fit", described)
        params["strong"] = None
    return params


def _method(saved: Any) -> Method | RoundMethod | str:
    """A method as it was saved, by its name or with its options."""
    if isinstance(saved, str):
        get_method(saved)
        return saved
    options = dict(saved)
    return cast(Method | RoundMethod, from_options(get_method(options.pop("name")), options))


def _params_of_run(folder: Path) -> dict[str, Any]:
    """The parameters that a run in the folder, if there is one, had."""
    identity = RunFolder(folder).read_identity()
    with suppress(KeyError, TypeError, ValueError, ConfigError):
        return {
            "model": identity["task"]["model"],
            "method": from_options(get_method(identity["method"]), identity["options"]),
            "config": from_options(TrainConfig, identity["config"]),
            "max_length": int(identity["task"]["max_length"]),
        }
    return {"model": str(folder)}
