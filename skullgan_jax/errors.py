"""The exceptions that end a command with one line on stderr and no traceback, and with which exit status.

A status says what a scheduler should do: 0, it is done; 2, it is not to be started again; 75, it is. Signals end a
command with 130 and 143, see machine/signals.py; a mistake of the program itself with its traceback and 1, which is
also `prepare`'s where it left out a scan.
"""

import errno
import re
from typing import ClassVar


class Told(Exception):
    """What a command prints on stderr, without a traceback, before it exits with `status`."""

    status: ClassVar[int]


class InputError(Told):
    """Bad input, told in one line: which file or value, what is wrong, what to do."""

    status = 2


class MachineError(Told):
    """The machine or the network failed, told in one line: the same command, given again, may go on."""

    status = 75  # EX_TEMPFAIL of sysexits.h


def _numbers(names: str) -> set[int]:
    return {getattr(errno, name) for name in names.split() if hasattr(errno, name)}  # not all systems have all


_OF_MACHINE = _numbers(
    "EAGAIN ECONNABORTED ECONNREFUSED ECONNRESET EDQUOT EFBIG EHOSTDOWN EHOSTUNREACH EINTR EIO EMFILE ENETDOWN "
    "ENETRESET ENETUNREACH ENFILE ENOBUFS ENODEV ENOLINK ENOMEM ENOSPC ENOTCONN ENXIO EREMOTEIO ESTALE ETIMEDOUT"
)
_OF_USER = _numbers("EACCES EISDIR ELOOP ENAMETOOLONG ENOTDIR EPERM EROFS")
# How TensorStore writes the codes of Abseil into its messages, and how TensorFlow calls its exceptions.
_FAILED = re.compile("ABORTED:|DEADLINE_EXCEEDED:|RESOURCE_EXHAUSTED:|UNAVAILABLE:")
_REFUSED = re.compile("PERMISSION_DENIED:|UNAUTHENTICATED:")
_FAILURES = ("AbortedError", "DeadlineExceededError", "ResourceExhaustedError", "UnavailableError")
_REFUSALS = ("PermissionDeniedError", "UnauthenticatedError")


def by_cause(error: BaseException, line: str, otherwise: type[Told] = InputError) -> Told:
    """The exception that tells of an error of the system, or of a library that reads or writes files and buckets.

    Args:
      error: what was raised.
      line: what is said of it.
      otherwise: what it is where nobody can tell: InputError or MachineError.
    """
    cause: BaseException | None = error
    while cause is not None:
        text, name = str(cause), type(cause).__name__
        told = re.search(r"os_error_code='(\d+)'", text)
        number = int(told[1]) if told else cause.errno if isinstance(cause, OSError) else None
        if number in _OF_USER or _REFUSED.search(text) or name in _REFUSALS:
            return InputError(line)
        if number in _OF_MACHINE or _FAILED.search(text) or name in _FAILURES:
            return MachineError(line)
        cause = cause.__cause__ or cause.__context__
    return otherwise(line)
