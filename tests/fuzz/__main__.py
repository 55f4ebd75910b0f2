"""`python -m tests.fuzz`: look for bytes that the relay does not bear.

With atheris the search is guided by coverage; where it has no wheel, hypothesis makes the bytes.
The exit status is 0 when nothing was found; else the input is written down and told.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = None
with contextlib.suppress(ImportError):
    import atheris  # type: ignore[no-redef]

NAMES = ("wire", "hub", "websocket", "http", "api")
_WATCHED = ["pyodide_node.wire", "pyodide_node.mesh", "relay_server", "websockets"]


def fuzz_all(options: argparse.Namespace) -> int:
    """Each target in a process of its own: the fuzzer never returns."""
    worst = 0
    print(f"guided by {'coverage' if atheris is not None else 'hypothesis'}", flush=True)
    for name in options.target or NAMES:
        command = [sys.executable, "-m", "tests.fuzz", "--inside", name]
        command += ["--seconds", str(options.seconds), "--seed", str(options.seed)]
        command += ["--plant"] if options.plant else []
        done = subprocess.run(command, check=False)
        found = "FOUND SOMETHING" if done.returncode else "nothing found"
        print(f"{name}: {found}", flush=True)
        worst = max(worst, abs(done.returncode))
    return worst


def fuzz_one(name: str, options: argparse.Namespace) -> None:
    watching = contextlib.nullcontext()
    if atheris is not None:
        watching = atheris.instrument_imports(include=_WATCHED, enable_loader_override=False)
    with watching:
        from tests.fuzz import planted, targets

    if options.plant:
        planted.plant()
    target = targets.TARGETS[name]
    if options.input:
        target(options.input.read_bytes())
        return
    with tempfile.TemporaryDirectory(prefix="kwaainet-fuzz-") as corpus:
        for number, seed in enumerate(targets.seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        if atheris is None:
            planted.by_hypothesis(target, targets.seeds(name), options.seconds)
            return
        found = Path(tempfile.gettempdir()) / f"kwaainet-fuzz-{name}-"
        arguments = [
            f"-max_total_time={options.seconds:.0f}",
            f"-seed={options.seed}",
            "-max_len=2048",
            "-timeout=20",
            "-rss_limit_mb=2048",
            f"-artifact_prefix={found}",
            "-print_final_stats=1",
            "-verbosity=0" if options.seconds < 30 else "-verbosity=1",
            corpus,
        ]
        atheris.Setup([sys.argv[0], *arguments], target)
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=NAMES, help="these only")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="try this file again, as --inside one target")
    parser.add_argument("--plant", action="store_true", help="with a mistake made on purpose")
    parser.add_argument("--inside", choices=NAMES, help="search in this process")
    options = parser.parse_args()
    if options.inside:
        fuzz_one(options.inside, options)
    else:
        sys.exit(fuzz_all(options))


if __name__ == "__main__":
    main()
