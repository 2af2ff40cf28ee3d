"""The protocol of zmesh without I/O: no clock, socket, task, randomness or log of its own.

Others use `Engine`, and the values that it takes and returns: `effects`, `message`, `limits`, `wire`, `view`. Ids and
the time (`now`, seconds of a monotonic clock) are arguments; the results are effects, as values.
"""
