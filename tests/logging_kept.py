"""Keeps the logging of the tests' process as it is, whatever a test does to it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logging_kept() -> Iterator[None]:
    """Undo at the end of the block what it has done to handlers and levels.

    Litestar, Django and uvicorn configure the logging of the whole process when an app of theirs is made. Without
    this, the lines of later tests go to their handlers, and a test that reads its lines finds none.
    """
    root, ours = logging.getLogger(), structlog.get_config()
    before = {logger: _state(logger) for logger in [root, *_loggers()]}
    disabled = logging.root.manager.disable
    yield
    logging.disable(disabled)
    for logger in [root, *_loggers()]:
        state = before.get(logger, (logging.NOTSET, [], True, False))
        if _state(logger) != state:
            level, handlers, logger.propagate, logger.disabled = state
            logger.handlers[:] = handlers
            logger.setLevel(level)
    assert structlog.get_config() == ours, "our own logging was configured: run what does it as a process (`run`)"


def _loggers() -> list[logging.Logger]:
    # A name with a dot has a placeholder for each part before it.
    return [it for it in logging.root.manager.loggerDict.values() if isinstance(it, logging.Logger)]


def _state(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool, bool]:
    return logger.level, [*logger.handlers], logger.propagate, logger.disabled
