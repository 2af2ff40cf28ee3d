"""Metrics of a node for Prometheus: served over HTTP, or written to a file for node_exporter; the extra `metrics`.

`Exporter` is the facade. Everything is read from the node's tables when it is asked for; only requests are counted as
they end, by `RequestMeter`.
"""

from __future__ import annotations

from zmesh.metrics.exporter import Exporter, checked_settings

__all__ = ["Exporter", "checked_settings"]
