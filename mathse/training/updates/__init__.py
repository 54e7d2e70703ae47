"""Updates of the student: the advantage of a response, the loss of a token, and losses of pairs and verdicts."""
