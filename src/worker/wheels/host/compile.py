# Compiles the modules below a folder, for the path that the folder will have. Executes none of them.
import sys

# Nothing may come from the folder in which the worker runs, nor from the wheel.
sys.path[:] = [entry for entry in sys.path if entry]

import compileall
import py_compile

folder, final = sys.argv[1:3]
# Nothing is written outside of the folder, and this is where runs would look instead (PYTHONPYCACHEPREFIX).
if sys.pycache_prefix:
    sys.exit(0)
# Two: what cannot be compiled is not told either. A package may well have templates that end in .py.
compileall.compile_dir(
    folder,
    ddir=final,
    quiet=2,
    force=True,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
