"""Prints the method table of the README, or with --write puts it there; exits 1 with --check if the README is stale."""

import re
import sys
from pathlib import Path

from nlp_ssl.cli.methods import markdown

README = Path(__file__).parent.parent / "README.md"
PATTERN = re.compile(r"(<!-- methods:[^>]*-->\n).*?(<!-- /methods -->)", re.DOTALL)


def main(mode: str) -> int:
    """Does what the module says."""
    text = README.read_text()
    renewed = PATTERN.sub(lambda found: f"{found[1]}\n{markdown()}\n{found[2]}", text)
    if mode == "--write":
        README.write_text(renewed)
    elif mode == "--check":
        return int(renewed != text)
    else:
        print(markdown(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
