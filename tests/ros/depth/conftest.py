"""What the tests with a depth camera share."""

from __future__ import annotations

import pytest
from depth_camera import DepthCamera
from ros_peers import NodeProcess, Peer


@pytest.fixture(scope='module')
def depth_camera(segment: NodeProcess, peer: Peer) -> DepthCamera:
    return DepthCamera(peer)
