"""The exceptions a user is meant to see."""


class InputError(Exception):
    """Something the user supplied is unusable.

    The message is one line: where (file, key path), then what is wrong and what was expected.
    Every command-line stage prints it without a traceback and exits with status 2.
    """


class BusyError(InputError):
    """Another process is at work on the same result; unlike other bad input, this passes by itself."""


class RefusedInput(InputError):
    """What an earlier step could not make, and why; it left a file that says so.

    One arm of a study that has no training data must not take the table of the others. Steps between the data
    of that arm and the table pass the reason on; every other one stops, as for any unusable input.

    Attributes:
        reason: why, in one line, without the file.
    """

    def __init__(self, where: object, reason: str):
        super().__init__(f"{where}: there is none: {reason}")
        self.reason = reason
