"""The first message on the control socket: makes modules of the texts that follow, then goes to work."""

import contextlib
import fcntl
import json
import os
import sys
import termios
import types

text = b""
while not text.endswith(b"\n"):
    # In parts, since the kernel bounds a message; JSON has no line end within.
    part = control.recv(1 << 20)  # noqa: F821 (set by the command line)
    if not part:
        # The worker has gone.
        sys.exit(0)
    text += part
order = json.loads(text)
package = types.ModuleType("pyoco_host")
package.__path__ = []
sys.modules["pyoco_host"] = package
for name, text in order["modules"]:
    module = types.ModuleType(f"pyoco_host.{name}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"<pyoco_host/{name}.py>", "exec"), module.__dict__)
# Whoever started the worker may sit at a terminal; nobody there is asked anything.
with contextlib.suppress(OSError):
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(terminal, termios.TIOCNOTTY)
    os.close(terminal)
# Code that reads its standard input must not get at the control socket.
control = control.__class__(fileno=os.dup(control.detach()))
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.close(null)
sys.modules["pyoco_host.template"].template(control, order["settings"])
