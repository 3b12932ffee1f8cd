"""Runs a command; prints its peak memory in kB and its seconds as the last line.

A program of its own, and small: the kernel lets a new process begin with the peak of the one that
started it.
"""

import os
import sys
import time

if __name__ == "__main__":
    started = time.perf_counter()
    _, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]), 0)
    print(usage.ru_maxrss, time.perf_counter() - started)
    raise SystemExit(os.waitstatus_to_exitcode(status))
