"""Prints which way every pair of nodes found:  python -m tests.lab"""

from __future__ import annotations

import asyncio
import sys

from tests.lab.measuring import measure, missing


def main() -> None:
    if reason := missing():
        sys.exit(f"The lab cannot run: {reason}.")
    for row in asyncio.run(measure()):
        print(row)


if __name__ == "__main__":
    main()
