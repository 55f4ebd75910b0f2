"""Prints which way every pair of nodes found:  python -m tests.lab"""

from __future__ import annotations

import asyncio
import sys

from tests.lab.measuring import measure, missing
from tests.lab.table import markdown


def main() -> None:
    if reason := missing():
        sys.exit(f"The lab cannot run: {reason}.")
    rows = asyncio.run(measure())
    print(markdown(rows))
    for row in rows:
        if row.problem:
            print(f"{row.asker} to {row.asked}: {row.problem}", file=sys.stderr)


if __name__ == "__main__":
    main()
