"""A node that gets signals without a pause from its end on: the argument is their number."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from rclpy.node import Node

from clipseg_ros.process.runner import run_node


class Interrupted(Node):
    """Says when it is made and when it ends."""

    def __init__(self) -> None:
        super().__init__('interrupted')
        print('ready', flush=True)

    def close(self) -> None:
        """Have signals sent until this process is gone."""
        print('ending', flush=True)
        send = f'while kill -{sys.argv[1]} {os.getpid()} 2>&-; do :; done'
        self.sender = subprocess.Popen(['sh', '-c', send])
        time.sleep(0.1)


if __name__ == '__main__':
    status = run_node(Interrupted, [])
    print('ended', flush=True)
    raise SystemExit(status)
