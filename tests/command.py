"""The command line in processes of its own, without the half second of imports for each of them.

A server process imports pymig once and forks for every command (multiprocessing's forkserver). What
runs is pymig.cli.main, with its own arguments, environment, standard output and error, and exit.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_processes: Final = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["pymig.cli", "pymig.install", "pymig.migrate", "pymig.worker"])


@dataclass(frozen=True)
class Done:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str
    seconds: float


def run(arguments: tuple[str, ...], environment: Mapping[str, str], timeout: float = 60) -> Done:
    """Run the command line to its end; one that takes longer is killed, and an error."""
    with tempfile.TemporaryDirectory(prefix="pymig-command-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _processes.Process(
            target=_main, args=(arguments, {**os.environ, **environment}, str(out), str(err))
        )
        began = time.monotonic()
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"pymig {' '.join(arguments)} takes longer than {timeout} s")
        seconds = time.monotonic() - began
        assert process.exitcode is not None
        return Done(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"), seconds)


def _main(arguments: tuple[str, ...], environment: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in ((os.devnull, 0), (out, 1), (err, 2)):
        number = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(number, stream)
        os.close(number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["pymig", *arguments]
    from pymig.cli import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
