"""The exceptions a user is meant to see."""


class InputError(Exception):
    """Something the user supplied is unusable.

    The message is one line: where (file, key path), then what is wrong and what was expected.
    Every command-line stage prints it without a traceback and exits with status 2.
    """


class BusyError(InputError):
    """Another process is at work on the same result; unlike other bad input, this passes by itself."""
