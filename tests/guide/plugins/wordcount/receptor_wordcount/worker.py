import json
import os

from receptor.plugin_utils import BUFFER_PAYLOAD, FILE_PAYLOAD, plugin_export


@plugin_export(payload_type=BUFFER_PAYLOAD)
def from_buffer(message, config, result_queue):
    """Count what the buffer holds, read in small pieces."""
    words, inside, size = 0, False, 0
    while True:
        piece = message.read(1000)
        if not piece:
            break
        size += len(piece)
        for character in piece.decode("ascii"):
            if character.isspace():
                inside = False
            elif not inside:
                words, inside = words + 1, True
    result_queue.put(json.dumps({"words": words, "bytes": size}))


@plugin_export(payload_type=FILE_PAYLOAD)
def from_file(message, config, result_queue):
    """Count what the file holds, and tell its path, so that one can see that it is gone afterwards."""
    with open(message) as lines:
        words = sum(len(line.split()) for line in lines)
    result_queue.put(json.dumps({"words": words, "bytes": os.path.getsize(message), "path": message}))


@plugin_export(payload_type=BUFFER_PAYLOAD)
def fail(message, config, result_queue):
    """Reply once, then fail as an integer does."""
    result_queue.put("before it fails")
    int(message.readall())
