"""Prints the table of methods in the README, or puts it there."""

import argparse
import re
import sys
from pathlib import Path

from nlp_ssl.cli.methods import markdown

README = Path(__file__).parent.parent / "README.md"
PATTERN = re.compile(r"(<!-- methods:[^>]*-->\n).*?(<!-- /methods -->)", re.DOTALL)


def main() -> int:
    """Does what the flag says; the exit code is 1 where `--check` finds the README stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the README has another table")
    flags = parser.parse_args()
    text = README.read_text()
    renewed = PATTERN.sub(lambda found: f"{found[1]}\n{markdown()}\n{found[2]}", text)
    if flags.write:
        README.write_text(renewed)
    elif not flags.check:
        print(markdown(), end="")
    return int(flags.check and renewed != text)


if __name__ == "__main__":
    sys.exit(main())
