"""A file is there as it was until the new one is whole."""

import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentstream.infra.cli.whole_file import whole_file


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def write_half(path: Path, stopped: BaseException) -> None:
    before = path.read_text() if path.exists() else None
    with whole_file(path) as file:
        file.write("half")
        file.flush()
        assert (path.read_text() if path.exists() else None) == before
        raise stopped


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), SystemExit(2), OSError(28, "No space left on device")])
def test_one_that_is_stopped_midway_leaves_what_stood_there(tmp_path: Path, stopped: BaseException) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text("yesterday's\n")
    with pytest.raises(type(stopped)):
        write_half(path, stopped)
    assert (path.read_text(), left_in(tmp_path)) == ("yesterday's\n", ["letters.jsonl"])


def test_a_new_one_that_is_stopped_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "letters.jsonl", KeyboardInterrupt())
    assert left_in(tmp_path) == []


def test_permissions_are_those_that_open_would_leave(tmp_path: Path) -> None:
    old, new, plain = (tmp_path / name for name in ("old", "new", "plain"))
    old.write_text("")
    old.chmod(0o640)
    for path in (old, new):
        with whole_file(path) as file:
            file.write("é\n")
    plain.touch()
    assert old.read_bytes() == "é\n".encode()
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_link_stays_one_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    for text in ("made", "written again"):
        with whole_file(tmp_path / "link") as file:
            file.write(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == text
    assert left_in(tmp_path / "there") == ["file"]


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    path, read = tmp_path / "fifo", list[str]()
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    with whole_file(path) as file:
        file.write("letters")
    reader.join()
    assert (read, path.is_fifo()) == (["letters"], True)


def test_stdout_in_a_file_keeps_what_others_write_there(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from agentstream.infra.cli.whole_file import whole_file\n"
        "with whole_file(Path('/dev/stdout')) as file: file.write('ours ')\n"
    )
    target = tmp_path / "out"
    with target.open("a") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
        out.write("theirs")
    assert (target.read_text(), left_in(tmp_path)) == ("ours theirs", ["out"])


def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere" / "x", tmp_path / "file" / "x", tmp_path):
        with pytest.raises(OSError, match=re.escape(str(path))), whole_file(path):
            pass
    with pytest.raises(OSError, match="No space left"), whole_file(Path("/dev/full")) as file:
        file.write("x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_to_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("kept")
    path.chmod(0o444)
    with pytest.raises(PermissionError), whole_file(path):
        pass
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="kept"), whole_file(path):
            pass
    finally:
        tmp_path.chmod(0o755)
    assert path.read_text() == "kept"
