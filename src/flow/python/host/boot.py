"""The first message on the control socket: makes modules of the others' texts, then goes to work."""

import json
import os
import sys
import types

order = json.loads(control.recv(1 << 20))  # noqa: F821 (set by the command line)
package = types.ModuleType("pyoco_host")
package.__path__ = []
sys.modules["pyoco_host"] = package
for name, text in order["modules"]:
    module = types.ModuleType(f"pyoco_host.{name}")
    sys.modules[module.__name__] = module
    exec(compile(text, f"<pyoco_host/{name}.py>", "exec"), module.__dict__)
# Code that reads its standard input must not get at the control socket.
control = control.__class__(fileno=os.dup(control.detach()))
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.close(null)
sys.modules["pyoco_host.template"].template(control, order["settings"])
