"""Speech models behind one interface. Each file imports its own library, and only when its model is loaded."""
