"""lm-eval itself: quiet, quick where it does again what it has done, its templates in a sandbox.

Importing this module loads neither torch nor lm-eval.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from alignboard.errors import InputError


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """No progress bars or warnings of lm-eval, its inventory of the machine taken once, each template compiled once."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.ExitStack() as stack:
        from lm_eval import evaluator, utils
        from torch.utils import collect_env

        _replace(stack, collect_env, "get_pretty_env_info", _once)
        _replace(stack, evaluator, "get_git_commit_hash", lambda _: lambda: None)
        _replace(stack, utils, "env", _compiling_once)
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def sandboxed() -> Iterator[None]:
    """Templates of tasks rendered in Jinja's sandbox; raises `InputError` for one that would leave it."""
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    def sandbox(own: Any) -> SandboxedEnvironment:
        found = SandboxedEnvironment(
            undefined=own.undefined, keep_trailing_newline=own.keep_trailing_newline
        )
        found.filters.update(own.filters)
        return _compiling_once(found)

    with contextlib.ExitStack() as stack:
        _replace(stack, utils, "env", sandbox)
        try:
            yield
        except SecurityError as error:
            raise InputError(
                f"a task's template is not safe ({error}); read the task's file, then agree by --trust-tasks."
            ) from error


def _replace(
    stack: contextlib.ExitStack, module: Any, name: str, change: Callable[[Any], Any]
) -> None:
    original = getattr(module, name)
    setattr(module, name, change(original))
    stack.callback(setattr, module, name, original)


@functools.lru_cache(maxsize=4)
def _once(function: Callable[[], str]) -> Callable[[], str]:
    """``function``, called at most once per process."""
    return functools.lru_cache(maxsize=1)(function)


def _compiling_once(own: Any) -> Any:
    """The Jinja environment ``own``, for which lm-eval compiles a template for every text that it fills in."""
    found = own.overlay()
    found.from_string = functools.lru_cache(maxsize=1024)(found.from_string)
    return found
