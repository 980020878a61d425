"""The one exception that means: the user can fix this."""


class InputError(Exception):
    """Bad input, told in one line: which file or value, what is wrong, what to do.

    Commands print it on stderr without a traceback and exit with status 2.
    """
