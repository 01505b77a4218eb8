"""Two processes, a lock, and what is left behind; what a search hears of it is in test_saving."""

import errno
import multiprocessing
import os
import signal

import pytest

from hyperopt_hyperband import _writer
from hyperopt_hyperband._writer import Writer


@pytest.mark.slow
def test_never_two_at_a_time_however_often_the_lock_file_comes_and_goes(tmp_path):
    target, inside = tmp_path / "file", tmp_path / "inside"

    def take_and_let_go():
        had = 0
        while had < 100:
            try:
                writer = Writer(target)
            except ValueError:
                continue
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails where another has it too
            os.unlink(inside)
            writer.write(lambda file: file.write(b"whole"))
            had += 1
            del writer

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=take_and_let_go) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert os.listdir(tmp_path) == ["file"]


def test_a_killed_process_leaves_nothing_that_blocks_or_stays(tmp_path):
    target = tmp_path / "file"
    (tmp_path / "file.mine.partial").touch()
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                Writer(target).write(lambda file: os.kill(os.getpid(), signal.SIGKILL))
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert len(list(tmp_path.glob("file.*"))) == 3  # the lock, half a file, and a file of the user's
    writer = Writer(target)
    writer.write(lambda file: file.write(b"whole"))
    del writer
    assert sorted(os.listdir(tmp_path)) == ["file", "file.mine.partial"]


@pytest.mark.filterwarnings("ignore:path=.*has no locks")  # the other process warns too
def test_where_there_are_no_locks_one_warning_says_so_and_two_writers_do_not_meet(tmp_path, monkeypatch):
    def no_locks(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_writer, "_lock", no_locks)
    target = tmp_path / "file"
    with pytest.warns(UserWarning, match=r"path='.*file': the file system has no locks \(.*available\)"):
        writer = Writer(target)

    def other_writes(file):
        child = os.fork()
        if child == 0:
            try:
                Writer(target).write(lambda other: other.write(b"other"))
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert target.read_bytes() == b"other"
        file.write(b"own")

    writer.write(other_writes)
    assert target.read_bytes() == b"own"
