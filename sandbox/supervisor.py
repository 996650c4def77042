"""Starts a server and ends it when the process that asked for it is gone, however that ended.

Run as ``python -I -S supervisor.py DIRECTORY PROGRAM ARGUMENTS...`` with a pipe on stdin that the parent holds and
never writes to. Prints the server's process id. Ends with the server, and passes its exit status on; when the pipe
closes, kills the server and removes the directory.

Why a process of its own: the kernel closes the pipe even after a SIGKILL, on any Unix. Linux's parent-death signal
would need no process, but it fires when the *thread* that started the server ends, which is too early for a server
that was started in a thread pool. A process forked from the parent may hold a copy of the pipe, so the parent's id is
watched too. Limit: a SIGKILL of the supervisor alone leaves the server running.
"""

import os
import select
import shutil
import signal
import subprocess
import sys

PARENT_CHECK_SECONDS = 1.0


def main() -> int:
    """Run the server and wait for its end, or for the parent's."""
    directory, *command = sys.argv[1:]
    parent = os.getppid()
    child_ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only a handled signal writes to the wake-up pipe
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr) as server:
        sys.stdout.write(f"{server.pid}\n")
        sys.stdout.flush()
        while server.poll() is None:
            readable, _, _ = select.select([sys.stdin, child_ended], [], [], PARENT_CHECK_SECONDS)
            if child_ended in readable:
                os.read(child_ended, 512)
            if sys.stdin in readable or os.getppid() != parent:
                server.kill()
                server.wait()
                shutil.rmtree(directory, ignore_errors=True)
        return server.returncode


if __name__ == "__main__":
    sys.exit(main())
