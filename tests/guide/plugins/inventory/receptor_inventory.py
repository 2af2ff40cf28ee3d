import json

import receptor

STOCK = {"bolt": 120, "nut": 80, "washer": 0}


@receptor.plugin_export
def execute(message, config, result_queue):
    """Reply with the stock of each part that the payload, a JSON list, names."""
    parts = json.loads(message.raw_payload)
    for part in parts:
        result_queue.put(json.dumps({"part": part, "stock": STOCK[part]}))
