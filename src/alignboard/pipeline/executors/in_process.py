"""The executor that does every job in this process, one after another."""

from __future__ import annotations

import os
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import partial

from alignboard.errors import InputError
from alignboard.pipeline.executors.doing import Doer
from alignboard.pipeline.executors.logs import open_log, with_log
from alignboard.pipeline.executors.work import Settings, Work, pause


class InProcess:
    """Does every job here, in the workspace. What libraries print goes to a log."""

    def __init__(self, settings: Settings) -> None:
        """Raises `InputError` where several workers are asked for."""
        if settings.n_workers > 1:
            raise InputError(
                f"The executor in-process has one worker, not {settings.n_workers}; several need --executor processes."
            )
        self._settings = settings

    def run(self, work: Work) -> None:
        """See `Executor`."""
        before = dict(os.environ)
        os.environ.update(self._settings.environment_of(0))
        device = next(iter(self._settings.devices), None)
        doer = Doer(work.paths, "worker-0", device, self._settings.helpers)
        try:
            # Paths of jobs are relative to the workspace, in which other executors start their workers.
            with (
                open_log(work.paths.logs, 0) as log,
                redirect_stdout(log),
                redirect_stderr(log),
                chdir(work.paths.workspace),
            ):
                while (assigned := work.take(0)) is not None or work.is_waiting:
                    if assigned is None:
                        pause()
                        continue
                    outcome = doer.do(assigned, partial(work.progress, 0))
                    work.report(0, with_log(outcome, log.name))
        finally:
            doer.close()
            os.environ.clear()  # this process goes on, and may load a model that needs the GPU
            os.environ.update(before)
