"""The protocol of zmesh without any I/O: no clock, socket, task, randomness or log of its own.

Ids and the time (`now`, seconds of a monotonic clock) come in as arguments; what is to be done comes out as values.
"""
