"""Delivery from end to end: the client's and the server's side, streams, acknowledgements, congestion, peers."""
