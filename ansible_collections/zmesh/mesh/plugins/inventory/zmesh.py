"""Inventory plugin: the nodes of a mesh as hosts, and their tags as groups."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

import zmesh.sync  # noqa: F401  # here, in the parent, so that no fork loads it anew for each task

DOCUMENTATION = """
name: zmesh
short_description: The nodes of a zmesh mesh, grouped by their tags
description:
  - Each node is a host, with the connection plugin of this collection, and each tag a group C(tag_NAME).
  - Its source is a YAML file whose name ends with C(zmesh.yml) or C(zmesh.yaml).
author: the zmesh authors
options:
  plugin:
    description: Must be C(zmesh.mesh.zmesh).
    required: true
    choices: [zmesh.mesh.zmesh]
  target:
    description: Which nodes, as for the command C(zmesh run); by default all of the mesh.
    type: string
  peer:
    description: >-
      Where to join the mesh, as for C(--peer) of the command C(zmesh): a URL, or the id of a node of yours on this
      machine; by default the node that runs here. If it is given here, the hosts have it as C(ansible_zmesh_peer).
    type: string
  insecure:
    description: Allow plaintext to other machines, for a network that you trust.
    type: boolean
    default: false
    env:
      - name: ZMESH_INSECURE
  timeout:
    description: Seconds to wait for the list of nodes.
    type: integer
    default: 10
extends_documentation_fragment:
  - constructed
"""

EXAMPLES = """
# zmesh.yml: all nodes; the group tag_gpu has those with the tag gpu
plugin: zmesh.mesh.zmesh

# edges.zmesh.yml: some of them, as seen from a hub, grouped by the first word of their ids as well
plugin: zmesh.mesh.zmesh
peer: tcp://hub.example.net:7323
target: "tag:edge,!edge-9"
keyed_groups:
  - key: inventory_hostname.split('-')[0]
    separator: ""
"""

SUFFIXES = ("zmesh.yml", "zmesh.yaml")
CONNECTION = "zmesh.mesh.zmesh"
TAG_GROUP = "tag_"


class InventoryModule(BaseInventoryPlugin, Constructable):
    """The hosts and groups of a mesh."""

    NAME = "zmesh.mesh.zmesh"

    def verify_file(self, path: str) -> bool:
        """Whether a file is a source of this plugin, by its name."""
        return bool(super().verify_file(path)) and path.endswith(SUFFIXES)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the nodes that the source stands for. Raises AnsibleParserError."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        for node in self._nodes():
            self._add(node)

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes, as `zmesh nodes --json` has them. Raises AnsibleParserError."""
        words = ["nodes", "--json", "--timeout", str(self.get_option("timeout"))]
        if peer := self.get_option("peer"):
            words += ["--peer", peer]
        if self.get_option("insecure"):
            words.append("--insecure")
        if target := self.get_option("target"):
            words.append(target)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "zmesh_cli", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise AnsibleParserError(f"can't list the nodes of the mesh: {done.stderr.strip().removeprefix('zmesh: ')}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _add(self, node: dict[str, Any]) -> None:
        host = self.inventory.add_host(node["node"])
        values = {
            "ansible_connection": CONNECTION,
            "zmesh_tags": node["tags"],
            "zmesh_own_tags": node["own_tags"],
            "zmesh_hops": node["hops"],
        }
        if peer := self.get_option("peer"):
            values["ansible_zmesh_peer"] = peer
        for name, value in values.items():
            self.inventory.set_variable(host, name, value)
        for tag in sorted({*node["tags"], *node["own_tags"]}):
            group = self.inventory.add_group(self._sanitize_group_name(TAG_GROUP + tag))
            self.inventory.add_child(group, host)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), values, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), values, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), values, host, strict=strict)
