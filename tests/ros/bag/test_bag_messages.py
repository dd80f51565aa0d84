"""Messages that are made without ROS."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipseg_ros.bag.messages import VISION, MessageFactory, message_store


def test_vision_msgs_are_those_of_the_tests_package() -> None:
    folder = Path(__file__).parents[1] / 'interfaces' / 'vision_msgs' / 'msg'
    written = {
        path.stem: [
            line for line in path.read_text().splitlines() if line and not line.startswith('#')
        ]
        for path in folder.glob('*.msg')
    }
    written = {name: written[name] for name in VISION}
    assert {name: text.splitlines() for name, text in VISION.items()} == written


def test_what_is_not_given_is_zero() -> None:
    make = MessageFactory(message_store())
    hypothesis = make.ObjectHypothesisWithPose()
    assert hypothesis.pose.covariance.tolist() == [0.0] * 36
    assert hypothesis.hypothesis.class_id == ''
    assert make.SegmentArray().segments == []
    assert make.Segment(id=3).id == 3
    with pytest.raises(TypeError, match='no field'):
        make.Segment(colour=1)
    with pytest.raises(AttributeError, match='Cloud'):
        make.Cloud()
