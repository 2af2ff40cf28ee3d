import receptor


@receptor.plugin_export(payload_type=receptor.BYTES_PAYLOAD)
def execute(message, config, result_queue):
    """Reply with each line of the payload in capitals, and with the mark that the node's settings name."""
    mark = config.get("mark", "!")
    for line in message.decode("utf-8").splitlines():
        result_queue.put(line.upper() + mark)


def quietly(message, config, result_queue):
    """Not marked, so nobody may call it."""
    result_queue.put(message.lower())
