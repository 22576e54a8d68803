"""What the protocol means: a state machine of one transcription session that does no I/O."""
