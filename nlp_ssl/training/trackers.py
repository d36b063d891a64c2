"""Trackers of experiments, as Accelerate knows them: whether they can be used, before anything is trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator, tracking
from accelerate.utils import LoggerType

from nlp_ssl.errors import ConfigError, RunError, nearest

NAMES = tuple(kind.value for kind in LoggerType if kind is not LoggerType.ALL)
_PACKAGES = {"aim": "aim<4"}  # where another version or name than the tracker's own is wanted


def check_trackers(names: Sequence[str], folder: bool) -> None:
    """Refuses trackers that would not track: Accelerate leaves out, without a word, those that it cannot use.

    Args:
        names: of the trackers.
        folder: whether there is an output folder for those that write files.

    Raises:
        ConfigError: a name is unknown, its package is not installed, or it needs a folder and there is none.
    """
    if isinstance(names, str):
        raise ConfigError(207, f"trackers is the word {names!r}: give a tuple of names, such as ({names!r},)")
    usable = [str(kind) for kind in tracking.get_available_trackers()]
    for name in names:
        if name not in NAMES:
            raise ConfigError(207, f"unknown tracker {name!r}.{nearest(name, NAMES)}")
        if name not in usable:
            wanted = _PACKAGES.get(name, name)
            raise ConfigError(258, f"tracker {name!r} needs a package that is not there: pip install {wanted!r}")
        if not folder and tracking.LOGGER_TYPE_TO_CLASS[name].requires_logging_directory:
            raise ConfigError(213, f"tracker {name!r} needs an output folder")


def start_trackers(accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
    """Starts those that the accelerator was made with; they note the settings.

    Raises:
        RunError: one of them cannot start, e.g. for want of a login or a server.
    """
    try:
        accelerator.init_trackers("nlp_ssl", config=dict(settings))
    except Exception as error:  # whatever a tracker's package raises
        reason = (str(error).splitlines() or [""])[0][:160]
        names = ", ".join(map(str, accelerator.log_with))
        raise RunError(
            307, f"{names} cannot start ({type(error).__name__}: {reason}): leave it out, or fix it"
        ) from error
