"""The link that each frame leaves on, the queues of full links, and the errors that go back to a source."""
