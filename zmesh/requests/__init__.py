"""The client's side of an exchange: requests, their replies, fan-out to many nodes."""
