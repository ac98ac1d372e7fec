"""Log lines for people: read where the engine writes them, merged by time."""
