"""The explain document: where a request goes, and why other endpoints get no traffic. Pure."""
