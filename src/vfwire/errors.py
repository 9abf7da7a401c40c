"""The exception tree. Every error a user can meet ends here, with its exit code and its next step.

VfwireError                    exit 1
├── UsageError                 exit 2    an option or argument that makes no sense
├── UnsupportedMachine         exit 3    not Linux, no memfd, a privilege or tool is missing
├── CannotTell                 exit 3    a check that finds no answer: 0 is yes, 1 is no, 3 is neither
├── ResourceBusy               exit 4    a socket, tap or name that somebody else holds
├── PermissionDenied           exit 5    the kernel said no
├── BadInput                   exit 6    a capture that is none, or is cut off
├── PeerGone                   exit 7    the card, a layer or a system went away
├── ProtocolError              exit 8    the other side broke the protocol
│   └── BadAccess                        an access outside of what was granted or mapped
└── WaitTimeout                exit 9    a bounded wait ended; it says what was seen last
"""


class VfwireError(Exception):
    """Base of all errors that are reported in one line.

    message: the cause. hint: the next step, one sentence, or "" where there is none.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(VfwireError):
    exit_code = 2


class UnsupportedMachine(VfwireError):
    exit_code = 3


class CannotTell(VfwireError):
    exit_code = 3


class ResourceBusy(VfwireError):
    exit_code = 4


class PermissionDenied(VfwireError):
    exit_code = 5


class BadInput(VfwireError):
    exit_code = 6


class PeerGone(VfwireError):
    exit_code = 7


class ProtocolError(VfwireError):
    """errno: the number sent back to the peer (vfio-user error replies carry one)."""

    exit_code = 8

    def __init__(self, message: str, hint: str = "", errno: int = 22) -> None:
        super().__init__(message, hint)
        self.errno = errno


class BadAccess(ProtocolError):
    pass


class WaitTimeout(VfwireError):
    exit_code = 9
