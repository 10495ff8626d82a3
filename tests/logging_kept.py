"""Restores the logging of the tests' process after a test has changed it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def logging_kept() -> Iterator[None]:
    """Restore handlers and levels at the end of the block.

    Litestar, Django and uvicorn configure the logging of the whole process when one of their apps is created. Without
    this function, the lines of later tests go to their handlers, and a test that reads its lines finds none.
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
    # The dictionary also contains a placeholder for each part of a name before a dot.
    return [it for it in logging.root.manager.loggerDict.values() if isinstance(it, logging.Logger)]


def _state(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool, bool]:
    return logger.level, [*logger.handlers], logger.propagate, logger.disabled
