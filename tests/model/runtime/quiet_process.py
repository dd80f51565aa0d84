"""A process that ends at once where it opens a socket to another machine.

``python quiet_process.py SCRIPT``: a name look-up needs such a socket as well, so a process that
ends by itself has made neither a look-up nor a connection. The kernel watches (seccomp), so native
code is seen too.
"""

from __future__ import annotations

import ctypes
import platform
import socket
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_SOCKET = {'x86_64': 41, 'aarch64': 198}
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000


def forbid_sockets() -> None:
    """Let the kernel kill this process when it calls ``socket(AF_INET or AF_INET6)``.

    Raises:
        OSError: The kernel does not do so.
    """
    steps = [
        (_LOAD, 0, 0, 0),  # The number of the call.
        (_EQUALS, 0, 4, _SOCKET[platform.machine()]),
        (_LOAD, 0, 0, 16),  # The lower half of its first argument.
        (_EQUALS, 1, 0, socket.AF_INET),
        (_EQUALS, 0, 1, socket.AF_INET6),
        (_RETURN, 0, 0, _KILL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
    program = struct.pack('HxxxxxxP', len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _FILTER, program)):
        if libc.prctl(*words, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), 'prctl')


if __name__ == '__main__':
    forbid_sockets()
    exec(sys.argv[1])
