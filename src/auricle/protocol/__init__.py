"""What is said on the wire: the session's settings, the events, and the two dialects that write them down."""
