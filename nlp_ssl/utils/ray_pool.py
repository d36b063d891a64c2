"""Files shared out by Ray Data, on one machine or a cluster whose machines see the same folders."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from nlp_ssl.errors import ConfigError, SSLError

Work = Callable[[Path, Path], str]


class _Actor:
    """Opens what does the work once, and does it for one file after the other."""

    def __init__(self, open_work: Callable[[], AbstractContextManager[Work]]) -> None:
        self._open_work, self._stack = open_work, ExitStack()
        self._work: Work | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        answers, errors = [], []
        for source, out in zip(batch["source"], batch["out"], strict=True):
            try:
                if self._work is None:
                    self._work = self._stack.enter_context(self._open_work())
                answers.append(self._work(Path(str(source)), Path(str(out))))
                errors.append("")
            except SSLError as error:  # one line, not the trace of another machine
                answers.append("")
                errors.append(str(error))
        return {"answer": answers, "error": errors}


def on_ray(
    open_work: Callable[[], AbstractContextManager[Work]], pairs: Sequence[tuple[Path, Path]], workers: int
) -> Iterator[tuple[str, str]]:
    """(answer, error) of each file's work, as they are done; the error is empty where all went well.

    A worker that dies is replaced and its file done again.

    Args:
        open_work: opened once by each worker; the result is called with (file, file to write).
        pairs: files and what is made of them, on a file system that all machines share.
        workers: Ray actors side by side.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(293, "Ray is not installed: pip install '.[ray]'") from None
    if not pairs:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    items: list[Any] = [{"source": str(a.absolute()), "out": str(b.absolute())} for a, b in pairs]
    data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor, fn_constructor_args=(open_work,), batch_size=1, concurrency=min(workers, len(items)), num_cpus=1
    )
    for row in data.iter_rows():
        yield row["answer"], row["error"]
