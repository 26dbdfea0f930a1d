import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("import_everything.py")


def test_importing_any_module_does_no_work() -> None:
    # A package that opens sockets, starts threads or reads the environment when it is imported cannot be composed,
    # tested or documented without doing so.
    done = subprocess.run([sys.executable, str(SCRIPT), "agentstream"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize(
    ("code", "noticed"),
    [
        ("import os; x = os.environ.get('HOME')", "read HOME"),
        ("import os; x = os.getenv('HOME')", "read HOME"),
        ("from pathlib import Path; x = Path.home()", "read HOME"),
        ("import os; x = 'HOME' in os.environ", "read HOME"),
        ("import socket; x = socket.socket(); x.close()", "socket.__new__"),
        ("import threading; threading.Thread(target=print).start()", "started <Thread"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("x = open('written', 'w').close()", "to write"),
    ],
)
def test_work_at_import_time_is_noticed(code: str, noticed: str, tmp_path: Path) -> None:
    package = tmp_path / "planted"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "worker.py").write_text(code)
    command = [sys.executable, str(SCRIPT), "planted"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "planted.worker" in done.stdout
    assert noticed in done.stdout


def test_the_facade_alone_loads_no_kafka_library() -> None:
    code = "import agentstream, sys; print([name for name in sys.modules if name.startswith(('aiokafka', 'pydantic'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
