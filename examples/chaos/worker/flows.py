"""The flow of the chaos test for workers with Python: it leaves a line in a file when it begins,
every second, and when it ends."""

import os
import time

from pyoco import Flow, task


def note(run_id, word):
    line = f"{run_id} {word} {os.environ['CHAOS_WORKER']} {time.time():.3f}\n"
    # One write with O_APPEND: lines of several processes do not mix.
    file = os.open(os.environ["CHAOS_JOURNAL"], os.O_WRONLY | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


@task
def work(ctx, seconds):
    run_id = ctx.run_context.run_id
    note(run_id, "begin")
    now = time.monotonic()
    end, alive = now + seconds, now + 1.0
    while (left := end - time.monotonic()) > 0:
        if ctx.is_cancelled:
            return "cancelled"
        if time.monotonic() >= alive:
            note(run_id, "alive")
            alive += 1.0
        time.sleep(min(left, 0.1))
    note(run_id, "end")
    return "done"


def resolve_flow(name):
    return Flow(name="chaos") >> work if name == "chaos" else None
