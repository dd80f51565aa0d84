"""The policy for SROS 2 names what the node has: no more, and no less."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode


def allowed(repository: Path, enclave: str, kind: str, right: str) -> set[str]:
    root = ElementTree.parse(repository / 'config' / 'sros2_policy.xml').getroot()
    [found] = root.findall(f'.//enclave[@path="{enclave}"]')
    groups = found.findall(f'.//{kind}s[@{right}="ALLOW"]')
    return {str(entry.text) for group in groups for entry in group.findall(kind)}


def documented(repository: Path, heading: str) -> dict[str, str]:
    """Name → the row of the first table of docs/nodes.md with that heading."""
    text = (repository / 'docs' / 'nodes.md').read_text(encoding='utf-8')
    table = text[text.index(f'\n| {heading} |') :].strip().split('\n\n')[0]
    rows = re.findall(r'^\| `([^`]+)`(.*)', table, re.MULTILINE)
    return {re.sub('^~', '/clipseg', name): row for name, row in rows}


def rooted(names: set[str]) -> set[str]:
    return {name if name.startswith('/') else f'/{name}' for name in names}


def test_topics_and_services_of_the_node_are_allowed(repository: Path, domain: int) -> None:
    topics, services = documented(repository, 'topic'), documented(repository, 'service')
    inputs = rooted({name for name, row in topics.items() if row.startswith(' (in)')})
    inputs |= {'/image/compressed', '/depth/compressedDepth', '/tf', '/tf_static', '/clock'}
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = LifecycleNode('clipseg', context=context)
    try:
        usual = {name for name, _ in node.get_service_names_and_types_by_node('clipseg', '/')}
        told = {name for name, _ in node.get_publisher_names_and_types_by_node('clipseg', '/')}
    finally:
        node.destroy_node()
        context.try_shutdown()
    outputs = rooted({name for name, row in topics.items() if not row.startswith(' (in)')})
    assert len(inputs) > 10
    assert allowed(repository, '/clipseg', 'topic', 'subscribe') == inputs
    assert allowed(repository, '/clipseg', 'topic', 'publish') == outputs | told
    assert allowed(repository, '/clipseg', 'service', 'reply') == set(services) | usual


def test_others_get_what_the_node_has_and_no_parameters(repository: Path) -> None:
    asked = allowed(repository, '/robot', 'service', 'request')
    assert asked <= allowed(repository, '/clipseg', 'service', 'reply')
    assert not [name for name in asked if 'parameter' in name or 'state' in name]
    heard = allowed(repository, '/robot', 'topic', 'subscribe')
    assert heard <= allowed(repository, '/clipseg', 'topic', 'publish')
    own = {'/parameter_events', '/rosout'}
    for enclave in ('/camera', '/robot'):
        sent = allowed(repository, enclave, 'topic', 'publish') - own
        assert sent <= allowed(repository, '/clipseg', 'topic', 'subscribe')
    assert '/clipseg/prompt' not in allowed(repository, '/camera', 'topic', 'publish')
