"""Run in a process of its own: imports every module of a package and prints what they did besides, one line each."""

import importlib
import os
import pkgutil
import sys
import threading
from collections import UserDict

# Third-party packages may look at the environment when they are imported; ours may not.
OUTSIDE_WORLD = {
    "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.__new__", "socket.bind", "socket.connect",
    "socket.getaddrinfo", "subprocess.Popen", "tempfile.mkstemp", "tempfile.mkdtemp", "os.mkdir",
}  # fmt: skip
LAYERS = (
    "/os.py", "/posixpath.py", "/collections/__init__.py", "/_collections_abc.py",
    "/pathlib.py",  # until Python 3.12
    "/pathlib/__init__.py", "/pathlib/_local.py", "/pathlib/_abc.py",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main() -> None:
    # Loaded by the exporters' HTTP client. It finds out whether there is IPv6 by binding a socket: not our doing.
    importlib.import_module("urllib3")
    package = importlib.import_module(sys.argv[1])
    found: list[str] = []
    loading = package.__name__
    ours = tuple(package.__path__)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in OUTSIDE_WORLD:
            found.append(f"{loading}: {event} {arguments!r}")
        if (
            event == "open"
            and isinstance(arguments[2], int)
            and arguments[2] & WRITING
            and ".pyc" not in str(arguments[0])
        ):
            found.append(f"{loading}: opened {arguments[0]!r} to write")

    class Watched(UserDict[str, str]):
        """The environment; all reads of a mapping come down to these two."""

        def __getitem__(self, name: str) -> str:
            note(name)
            return self.data[name]

        def __contains__(self, name: object) -> bool:
            note(name)
            return name in self.data

    def note(name: object) -> None:
        if _caller().startswith(ours):
            found.append(f"{loading}: read {name} from the environment")

    os.environ = Watched(os.environ)  # type: ignore[assignment]  # noqa: B003
    sys.addaudithook(watch)
    threading.Thread.start = lambda thread: found.append(f"{loading}: started {thread}")  # type: ignore[method-assign, assignment]
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            loading = module.name
            importlib.import_module(module.name)
    sys.stdout.write("\n".join(found))


def _caller() -> str:
    """Return the file that asked, past the standard library's own layers."""
    frame = sys._getframe(3)
    while frame.f_back is not None and _is_standard(frame.f_code.co_filename):
        frame = frame.f_back
    return frame.f_code.co_filename


def _is_standard(file: str) -> bool:
    return file.startswith("<frozen") or file.endswith(LAYERS)


if __name__ == "__main__":
    main()
