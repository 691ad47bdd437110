# Prints which wheels fit this interpreter, best first, as one JSON object. Needs the standard library alone.
import sys

# Nothing may come from the folder in which the worker runs.
sys.path[:] = [entry for entry in sys.path if entry]

import json
import os
import struct
import sysconfig


def of_library():
    """What the library says that pip itself asks; its absence is no error."""
    for name in ("packaging.tags", "pip._vendor.packaging.tags"):
        try:
            module = __import__(name, fromlist=["sys_tags"])
            return name, [str(tag) for tag in module.sys_tags()]
        except Exception:
            continue
    return None, []


def own():
    """The same by ourselves (PyPA platform compatibility tags)."""
    major, minor = sys.version_info[:2]
    platforms = list(own_platforms())
    interpreter = None
    tags = []
    if sys.implementation.name == "cpython":
        interpreter = "cp%d%d" % (major, minor)
        threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
        abis = [interpreter + ("t" if threaded else "") + ("d" if is_debug() else "")]
        if is_debug():
            abis.append(interpreter + ("t" if threaded else ""))
        tags += ["%s-%s-%s" % (interpreter, abi, platform) for abi in abis for platform in platforms]
        stable = "abi3t" if threaded else "abi3"
        tags += ["%s-%s-%s" % (interpreter, stable, platform) for platform in platforms]
        tags += ["%s-none-%s" % (interpreter, platform) for platform in platforms]
        for older in range(minor - 1, 1, -1):
            tags += ["cp%d%d-%s-%s" % (major, older, stable, platform) for platform in platforms]
    pythons = ["py%d%d" % (major, minor), "py%d" % major]
    pythons += ["py%d%d" % (major, older) for older in range(minor - 1, -1, -1)]
    tags += ["%s-none-%s" % (python, platform) for python in pythons for platform in platforms]
    if interpreter:
        tags.append(interpreter + "-none-any")
    tags += [python + "-none-any" for python in pythons]
    return tags


def is_debug():
    return hasattr(sys, "gettotalrefcount")


def own_platforms():
    platform = sysconfig.get_platform().replace(".", "_").replace("-", "_").replace(" ", "_")
    if not platform.startswith("linux_"):
        yield platform
        return
    machine = platform[len("linux_"):]
    if struct.calcsize("P") == 4:
        # A 32-bit interpreter on a 64-bit kernel.
        machine = {"x86_64": "i686", "aarch64": "armv8l"}.get(machine, machine)
    machines = ["armv8l", "armv7l"] if machine == "armv8l" else [machine]
    for name in machines:
        yield "linux_" + name
    glibc = glibc_version()
    if glibc and machine in MANYLINUX:
        major, newest = glibc
        oldest = 5 if machine in ("x86_64", "i686") else 17
        for minor in range(newest, oldest - 1, -1):
            for name in machines:
                yield "manylinux_%d_%d_%s" % (major, minor, name)
                alias = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}.get(minor)
                if alias:
                    yield "%s_%s" % (alias, name)
    musl = None if glibc else musl_version()
    if musl:
        major, newest = musl
        for name in machines:
            for minor in range(newest, -1, -1):
                yield "musllinux_%d_%d_%s" % (major, minor, name)


MANYLINUX = {
    "x86_64", "i686", "aarch64", "armv7l", "armv8l", "ppc64", "ppc64le", "s390x", "loongarch64", "riscv64",
}


def glibc_version():
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (AttributeError, OSError, ValueError):
        return None


def musl_version():
    """What the loader of this very program says: musl has no call for it."""
    try:
        import re
        import subprocess

        with open(sys.executable, "rb") as file:
            loader = re.search(rb"/lib/ld-musl-[a-z0-9_]+\.so\.1", file.read(1 << 20))
        told = subprocess.run([loader.group().decode()], stderr=subprocess.PIPE).stderr.decode()
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        version = lines[1].split()[1].split(".") if lines[0].startswith("musl") else None
        return (int(version[0]), int(version[1])) if version else None
    except Exception:
        return None


source, tags = of_library()
if not tags or "own" in sys.argv:
    source, tags = "own", own()
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "source": source, "tags": tags}))
