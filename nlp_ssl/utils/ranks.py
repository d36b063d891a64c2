"""Which of a launcher's processes this is, told without importing torch."""

import os


def is_main() -> bool:
    """Whether this is the process that writes files and prints: the only one, or the first of a launcher's."""
    return int(os.environ.get("RANK", "0")) == 0
