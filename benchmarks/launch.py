"""Run a command and print {"s": its seconds, "peak": bytes of its largest resident set}: python -IS launch.py COMMAND.

A file of its own because the kernel counts in a peak what the parent held when it started the process: this one holds
next to nothing. POSIX.
"""

import json
import os
import subprocess
import sys
import time

begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - begin
print(json.dumps({"s": seconds, "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)}))
sys.exit(os.waitstatus_to_exitcode(status))
