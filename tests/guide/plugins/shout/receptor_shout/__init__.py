from .worker import execute  # noqa
