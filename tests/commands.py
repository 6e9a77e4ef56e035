"""Commands and plans without the seconds that an interpreter and torch take to load: in a fork, and in this process.

What a command changes (environment, folder, handlers of signals, modules) ends with it, as in a process of its own. Use
a new interpreter where a test is about what is loaded, about a kill, or about variables that libraries read on import.
"""

import logging
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from alignboard.cli import main
from alignboard.pipeline import runner
from alignboard.pipeline.executors.machine import Machine

run_plan = partial(runner.run_plan, machine=Machine(executor="in-process"))
"""does the jobs of a plan in this process"""


def alignboard(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``alignboard`` with ``arguments`` in ``folder``; ``env`` in place of this process' environment."""
    command = ["alignboard", *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = _run(command, folder, env, out.fileno(), err.fileno())
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(command, code, *texts)


def _run(
    command: list[str], folder: Path, env: Mapping[str, str] | None, out: int, err: int
) -> int:
    for own, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(own, target)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = command
    os.chdir(folder)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    _as_started()
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as an interpreter ends
        traceback.print_exc()
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _as_started() -> None:
    """Python's own warnings and log handlers, in place of pytest's; torch has no threads that a fork would lose."""
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    logging.root.handlers.clear()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
